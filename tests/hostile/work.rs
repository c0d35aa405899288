//! Requests that cost far more time than it took to send them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http_body_util::Full;
use serde_json::json;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::grpc::KernelGrpcServer;
use tower_kernels::service::KernelRegistry;

use super::size;
use crate::support::process::{PATIENCE, SAXPY, Server};

/// Messages as bytes, whatever they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// Calls a method with a message, and gives how long the first answer is; 0 where there is none.
async fn call(channel: &Channel, method: &'static str, message: Vec<u8>) -> Result<usize, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method);
    let message = Bytes::from(message);
    if method.ends_with("Stream") || method.ends_with("Info") {
        let requests = futures::stream::once(async move { message });
        let responses = grpc.streaming(Request::new(requests), path, Raw).await?;
        return responses.into_inner().message().await.map(|response| response.map_or(0, |bytes| bytes.len()));
    }
    grpc.unary(Request::new(message), path, Raw).await.map(|response| response.into_inner().len())
}

async fn rejection(channel: &Channel, method: &'static str, message: Vec<u8>) -> Status {
    call(channel, method, message).await.expect_err("answered")
}

const EXECUTE: &str = "/tower_kernels.v1.Kernel/Execute";
const TENSORS: &str = "/tower_kernels.v1.Kernel/ExecuteTensors";
const STREAM: &str = "/tower_kernels.v1.Kernel/ExecuteStream";

/// A field of bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(value);
    field
}

/// Tensors of one byte, each of another name.
fn tensors(count: usize) -> Vec<u8> {
    let tensor = |n: usize| {
        let name = field(1, format!("{n:x}").as_bytes());
        field(2, &[&name[..], &[2 << 3, 2], &[3 << 3 | 2, 1, 1], &field(4, b"x")].concat())
    };
    let kernel = field(1, b"linalg/saxpy");
    kernel.into_iter().chain((0..count).flat_map(tensor)).collect()
}

fn is_over(status: &Status, named: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|it| &*it.field).collect();
    assert_eq!(fields, [named], "{status:?}");
}

fn serves(server: &Server) {
    let body = format!(r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}}}"#);
    assert_eq!(server.post("/execute", &body).0, 200);
    assert_eq!(server.get("/health").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensors_are_counted_before_they_are_looked_at() {
    let server = Server::start(&[]);
    let message = tensors(size(40_000, 200_000));
    let nested = field(4, &message);
    let attacks = async {
        let (one, other) = (server.channel().await, server.channel().await);
        tokio::join!(rejection(&one, TENSORS, message), rejection(&other, STREAM, nested))
    };
    let (unary, stream) = tokio::time::timeout(PATIENCE, attacks).await.expect("an attack keeps the server busy");
    is_over(&unary, "inputs");
    is_over(&stream, "inputs");
    serves(&server);
}

/// Two bytes each, and a hundred in memory.
#[tokio::test]
async fn what_a_message_repeats_is_bounded_whatever_it_is() {
    let server = Server::start(&[]);
    let channel = server.channel().await;
    let bytes = size(1 << 20, 60 << 20);
    let repeated = |what: &[u8]| what.repeat(bytes / what.len());
    for (method, message, named) in [
        (TENSORS, repeated(&[2 << 3 | 2, 0]), "inputs"),
        (STREAM, field(4, &repeated(&[2 << 3 | 2, 0])), "inputs"),
        // Each a call of no tensors, merged into one.
        (STREAM, repeated(&[4 << 3 | 2, 0]), "request"),
        // One tensor's dimensions, each a field of its own, or all in one.
        (TENSORS, field(2, &repeated(&[3 << 3, 1])), "inputs[0].shape"),
        (TENSORS, field(2, &field(3, &repeated(&[1]))), "inputs[0].shape"),
        // Fields that nobody knows, and those of which each replaces the one before.
        (TENSORS, repeated(&[15 << 3, 1]), "request"),
        (EXECUTE, repeated(&[1 << 3 | 2, 1, b'a']), "request"),
        ("/tower_kernels.v1.Kernel/ListKernels", repeated(&[2 << 3, 1]), "request"),
        ("/tower_kernels.v1.Kernel/ListKernels", field(1, &repeated(b"x")), "domain"),
    ] {
        let status = rejection(&channel, method, message).await;
        is_over(&status, named);
    }
    let long = rejection(&channel, "/tower_kernels.v1.Kernel/GetKernel", field(1, &repeated(b"x"))).await;
    assert!(long.code() == Code::NotFound && long.message().len() < 1100, "{long:?}");
    // Groups within groups.
    let group = [vec![15 << 3 | 3; 50], vec![15 << 3 | 4; 50]].concat();
    assert_eq!(rejection(&channel, TENSORS, group.repeat(1000)).await.code(), Code::Internal);
    serves(&server);
}

#[tokio::test]
async fn health_and_reflection_take_short_questions_only() {
    let server = Server::start(&[]);
    let channel = server.channel().await;
    let name = vec![b'x'; 1 << 20];
    let status = rejection(&channel, "/grpc.health.v1.Health/Check", field(1, &name)).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    for version in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        // tonic's reflection ends the stream at what it cannot read, and says nothing. An answer would repeat the name.
        match call(&channel, version, field(4, &name)).await {
            Ok(length) => assert_eq!(length, 0, "{version}"),
            Err(status) => assert_eq!(status.code(), Code::OutOfRange, "{version}: {status:?}"),
        }
        let known = call(&channel, version, field(4, b"tower_kernels.v1.Kernel")).await.unwrap();
        assert!(known > 1000, "{version}: {known}");
    }
    serves(&server);
}

/// Posts a body of tensors, of which only the head is there.
fn post_head(server: &Server, head: &str) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(server.rest).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST /execute HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n\
         content-length: {0}\r\ninference-header-content-length: {0}\r\n\r\n{head}",
        head.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    (response[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}")))
}

#[test]
fn the_head_of_tensors_is_bounded_in_each_of_its_lists() {
    let server = Server::start(&[]);
    let input = |n: usize| json!({"name": n.to_string(), "datatype": "FP32", "shape": [0], "data": []});
    let head = |inputs: Vec<serde_json::Value>, outputs: Vec<serde_json::Value>| {
        json!({"kernel_id": "linalg/saxpy", "inputs": inputs, "outputs": outputs}).to_string()
    };
    let outputs = |count: usize| (0..count).map(|n| json!({"name": format!("{n:x}")})).collect();
    let shaped = |shape: Vec<usize>| json!({"name": "x", "datatype": "FP32", "shape": shape, "data": []});
    let long = json!({"name": "x".repeat(129), "datatype": "FP32", "shape": [0], "data": []});
    for (head, field) in [
        (head((0..700).map(input).collect(), vec![]), "inputs"),
        (head(vec![], outputs(4000)), "outputs"),
        (head(vec![input(0), shaped(vec![0; 20_000])], vec![]), "inputs[1].shape"),
        (head(vec![input(0), long], vec![]), "inputs[1].name"),
        (head(vec![], vec![json!({"name": "x".repeat(60_000)})]), "outputs[0].name"),
        (json!({"kernel_id": "linalg/saxpy", "id": "x".repeat(60_000), "inputs": []}).to_string(), "id"),
    ] {
        let (status, problem) = post_head(&server, &head);
        let named = problem["field"].as_str().unwrap_or_default();
        assert!(status == 400 && named.starts_with(field), "{field}: {status} {problem}");
        assert!(problem.to_string().len() < 2000, "{field}: {} bytes", problem.to_string().len());
    }
    // As many as there may be are looked at.
    let (status, problem) = post_head(&server, &head((0..256).map(input).collect(), vec![]));
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 400 && detail.contains("unknown"), "{status} {problem}");
    serves(&server);
}

/// Documents that are large and take long to be looked through are answered as small ones are, while small ones go on.
#[test]
fn large_documents_do_not_block_small_requests() {
    let server = Server::start(&["--rest-max-request-size=67108864"]);
    let count = size(8 << 20, 60 << 20);
    let document = format!(r#"{{"kernel_id": "graph/none", "input": [{}0]}}"#, "0,".repeat(count / 2));
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| (0..3).map(|_| server.post("/execute", &document).0).collect::<Vec<_>>()))
            .collect();
        let mut probes = 0;
        while !attackers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            serves(&server);
            probes += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(probes > 0);
        for attacker in attackers {
            assert_eq!(attacker.join().unwrap(), [404; 3]);
        }
    });
}

/// A message in a frame of gRPC.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// Whether the answer is there without the thread having done anything else meanwhile.
fn at_once<T>(response: impl Future<Output = T>) -> bool {
    let mut response = std::pin::pin!(response);
    let waker = std::task::Waker::noop();
    response.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
}

/// What is large is read on another thread, from which hang-ups and deadlines do not have to wait for it.
#[tokio::test]
async fn large_requests_are_not_read_on_the_thread_that_drives_connections() {
    let registry = Arc::new(KernelRegistry::new());
    let rest = KernelRouter::new(Arc::clone(&registry), RouterConfig::default()).into_router();
    let grpc = KernelGrpcServer::new(registry).into_service();
    for (numbers, is_small) in [(10, true), (1 << 20, false)] {
        let input = format!("[{}0]", "0,".repeat(numbers));
        let document = format!(r#"{{"kernel_id": "graph/none", "input": {input}}}"#);
        let post = http::Request::post("/execute").header("content-type", "application/json");
        let post = post.body(axum::body::Body::from(document)).unwrap();
        assert_eq!(at_once(rest.clone().oneshot(post)), is_small, "{numbers} numbers over REST");

        let message = [field(1, b"graph/none"), field(2, input.as_bytes())].concat();
        let call = http::Request::post(EXECUTE).header("content-type", "application/grpc");
        let call = call.body(Full::new(framed(&message))).unwrap();
        assert_eq!(at_once(grpc.clone().oneshot(call)), is_small, "{numbers} numbers over gRPC");
    }
}

/// What waits for its turn to be read ends with its deadline.
#[tokio::test]
async fn a_large_request_gets_a_response_by_its_deadline_however_long_reading_takes() {
    let router = KernelRouter::new(KernelRegistry::new(), RouterConfig::default()).into_router();
    let document = format!(r#"{{"kernel_id": "graph/none", "input": [{}0]}}"#, "0,".repeat(4 << 20));
    let post = http::Request::post("/execute").header("content-type", "application/json");
    let post = post.header("grpc-timeout", "1n").body(axum::body::Body::from(document)).unwrap();
    let response = router.oneshot(post).await.unwrap();
    assert!(matches!(response.status().as_u16(), 408 | 504), "{response:?}");
}
