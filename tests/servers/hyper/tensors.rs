//! Tensors as bodies of `tower_kernels::hyper`: over real sockets, and frame by frame, to see what is copied.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower_kernels::backends::Local;
use tower_kernels::hyper::{KernelHttpService, ResponseBody, serve};
use tower_kernels::service::{
    Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelService, RunContext,
};

const HEAD_LENGTH: &str = "inference-header-content-length";
const LONG: Duration = Duration::from_secs(600);

/// Answers with its input, and with a new array, and remembers where they are in memory.
#[derive(Clone, Default)]
struct Identity(Arc<Mutex<Vec<usize>>>);

#[derive(Serialize, Deserialize, JsonSchema)]
struct Input {
    bytes: Buffer<u8>,
    x: Buffer<f64>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Output {
    x: Buffer<f64>,
    filled: Buffer<f32>,
    collected: Buffer<f32>,
    bytes: Buffer<u8>,
}

impl Kernel for Identity {
    type Input = Input;
    type Output = Output;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/identity", "1.0.0", "Answers with its input.")
    }

    fn validate(&self, _: &Input) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &Input) -> Cost {
        Cost { bytes: size_of_val::<[f64]>(&input.x) as u64, ..Cost::default() }
    }

    fn run_cpu(&self, input: &Input, _: &RunContext<'_>) -> Result<Output, KernelError> {
        let mut filled = Buffer::zeroed(input.x.len());
        filled.iter_mut().zip(&*input.x).for_each(|(to, from)| *to = *from as f32);
        let collected: Buffer<f32> = input.x.iter().map(|x| *x as f32).collect();
        *self.0.lock().unwrap() = vec![input.x.as_ptr().addr(), filled.as_ptr().addr(), collected.as_ptr().addr()];
        Ok(Output { x: input.x.clone(), filled, collected, bytes: input.bytes.clone() })
    }
}

fn ramp(len: usize) -> Bytes {
    (0..len).flat_map(|i| (i as f64 + 0.1).to_le_bytes()).collect()
}

/// A byte less than aligned, so that what follows it is not aligned in the body.
const ODD: &[u8] = &[1, 2, 3, 4, 5];

fn head(len: usize) -> String {
    let tensor = |name: &str, datatype: &str, len: usize, bytes: usize| json!({"name": name, "datatype": datatype, "shape": [len], "parameters": {"binary_data_size": bytes}});
    json!({"inputs": [tensor("bytes", "UINT8", ODD.len(), ODD.len()), tensor("x", "FP64", len, len * 8)]}).to_string()
}

fn request<B>(head: &str, body: B) -> Request<B> {
    Request::post("/kernels/test/identity/execute")
        .header("content-type", "application/octet-stream")
        .header(HEAD_LENGTH, head.len())
        .body(body)
        .unwrap()
}

fn service(identity: &Identity) -> KernelHttpService<KernelService<Local>> {
    let registry = KernelRegistry::new();
    registry.register(identity.clone()).unwrap();
    KernelHttpService::new(registry)
}

/// The frames of an answer, the first of them parsed.
async fn frames(response: Response<ResponseBody>) -> (Value, Vec<Bytes>) {
    assert_eq!(response.status(), 200, "{:?}", response.into_body().collect().await.unwrap().to_bytes());
    let mut body = response.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap());
    }
    let head = serde_json::from_slice(&frames.remove(0)).unwrap();
    (head, frames)
}

/// From the frames of the request to those of the answer: the one copy is the one into aligned memory.
#[tokio::test]
async fn the_payload_is_copied_once_in_all() {
    let identity = Identity::default();
    let service = service(&identity);
    // Arrays from the allocator, too large to be copied, and in pages of their own.
    for len in [2000, (5 << 20) / 8 + 1] {
        let (head, x) = (head(len), ramp(len));
        let whole = Bytes::from([head.as_bytes(), ODD, &x].concat());
        for size in [whole.len(), 70_001] {
            let pieces = (0..whole.len()).step_by(size).map(|at| whole.slice(at..whole.len().min(at + size)));
            let pieces: Vec<_> = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))).collect();
            let body = StreamBody::new(futures::stream::iter(pieces));
            let (document, frames) = frames(service.call(request(&head, body)).await.unwrap()).await;
            let names: Vec<_> = document["outputs"].as_array().unwrap().iter().map(|output| &output["name"]).collect();
            assert_eq!(names, ["x", "filled", "collected", "bytes"]);
            let seen: Vec<_> = frames.iter().take(3).map(|frame| frame.as_ptr().addr()).collect();
            assert_eq!(seen, *identity.0.lock().unwrap(), "what is sent is where the kernel read and wrote it");
            assert!(frames[0] == x && frames[3] == ODD, "{len} in frames of {size}");
        }
    }
}

#[tokio::test]
async fn frames_of_one_byte_are_read_as_well() {
    let (head, x) = (head(700), ramp(700));
    let bytes = [head.as_bytes(), ODD, &x].concat();
    let pieces: Vec<_> =
        bytes.into_iter().map(|byte| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(&[byte])))).collect();
    let body = StreamBody::new(futures::stream::iter(pieces));
    let (_, frames) = frames(service(&Identity::default()).call(request(&head, body)).await.unwrap()).await;
    assert_eq!(frames[0], x);
}

/// A body may end in an error, and in trailers.
#[tokio::test]
async fn a_truncated_body_is_rejected_and_trailers_are_ignored() {
    let service = service(&Identity::default());
    let (head, x) = (head(4), ramp(4));
    let whole = Bytes::from([head.as_bytes(), ODD, &x].concat());
    let pieces = vec![Ok(Frame::data(whole.slice(..head.len() + 9))), Err(std::io::Error::other("gone"))];
    let broken = service.call(request(&head, StreamBody::new(futures::stream::iter(pieces)))).await.unwrap();
    assert_eq!(broken.status(), 400);
    let problem = broken.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("gone"), "{problem}");

    let pieces = vec![Ok::<_, Infallible>(Frame::data(whole)), Ok(Frame::trailers(http::HeaderMap::new()))];
    let (_, frames) =
        frames(service.call(request(&head, StreamBody::new(futures::stream::iter(pieces)))).await.unwrap()).await;
    assert_eq!(frames[0], x);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_megabytes_go_in_and_out_over_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, service(&Identity::default()), std::future::pending(), LONG));
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let len = 2 << 20;
    let (head, x) = (head(len), ramp(len));
    let body = Bytes::from([head.as_bytes(), ODD, &x].concat());
    for _ in 0..2 {
        let mut request = request(&head, Full::new(body.clone()));
        request.headers_mut().insert("host", "test".parse().unwrap());
        let response = client.send_request(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"] == "application/octet-stream"),
            (200, true)
        );
        let start: usize = response.headers()[HEAD_LENGTH].to_str().unwrap().parse().unwrap();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert!(answer.slice(start..start + x.len()) == x);
        assert_eq!(answer.len(), start + 2 * x.len() + ODD.len());
    }
}
