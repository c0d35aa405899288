//! Bad bytes, bad clients and bad moments, for tonic's own server and for the crate's, which the program uses.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::body::{Bytes, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt;
use tower_kernels::grpc::{ExecuteRequest, GrpcConfig, KernelClient};

use crate::grpc::server::{Elsewhere, Running, nap};
use crate::support::http_client::Wire;

const EXECUTE: &str = "/tower_kernels.v1.Kernel/Execute";

fn saxpy(y: f64) -> ExecuteRequest {
    let input = format!(r#"{{"a": 2.0, "x": [1.0], "y": [{y}]}}"#);
    ExecuteRequest { kernel_id: "linalg/saxpy".into(), input }
}

/// That a server is none the worse.
async fn assert_serves(server: &Running) {
    let output = server.execute("linalg/saxpy", r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#).await;
    assert_eq!(output.unwrap(), r#"{"y":[3.0]}"#, "{:?}", server.kind);
}

/// A call whose body is these frames, and then nothing more, or never anything more.
async fn send(channel: Channel, frames: &[&'static [u8]], ends: bool) -> Status {
    let frames: Vec<_> = frames.iter().map(|&bytes| Ok::<_, Status>(Frame::data(Bytes::from_static(bytes)))).collect();
    let frames = futures::stream::iter(frames);
    let body = if ends {
        tonic::body::Body::new(http_body_util::StreamBody::new(frames))
    } else {
        let frames = futures::StreamExt::chain(frames, futures::stream::pending());
        tonic::body::Body::new(http_body_util::StreamBody::new(frames))
    };
    let request = http::Request::post(EXECUTE)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = channel.oneshot(request).await.unwrap();
    Status::from_header_map(response.headers()).expect("a refusal is in the headers")
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_own_connection_and_no_other() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of 16 MiB; one of no type that there is; headers on stream 0; headers that are not compressed so.
    let frames: [&[u8]; 4] = [
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        b"\x00\x00\x01\x05\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\x04\x00\x00\x00\x00",
        b"\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff",
    ];
    for server in Running::both(GrpcConfig::default()).await {
        let wire = Wire { address: server.address };
        let mut bystander = server.client().await;
        let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00".as_slice();
        let broken = frames.iter().map(|frame| [PREFACE, settings, frame].concat());
        let noise: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for bytes in broken.chain([noise, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), vec![0; 64]]) {
            let mut stream = wire.say(&bytes).await;
            stream.shutdown().await.unwrap();
            let mut said = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
            ended.unwrap_or_else(|_| panic!("{:?} keeps {}", server.kind, bytes.escape_ascii())).ok();
            bystander.execute(saxpy(1.0)).await.unwrap();
        }
        // Half of a preface, and then the client is gone.
        drop(wire.say(&PREFACE[..10]).await);
        assert_serves(&server).await;
    }
}

#[tokio::test]
async fn an_http1_request_is_rejected_and_runs_nothing() {
    for server in Running::both(GrpcConfig::default()).await {
        let wire = Wire { address: server.address };
        for (method, path, headers) in [
            ("GET", "/", &[][..]),
            ("POST", EXECUTE, &[("content-type", "application/grpc"), ("te", "trailers")]),
            ("POST", EXECUTE, &[crate::support::http_client::JSON]),
        ] {
            let body = b"\x00\x00\x00\x00\x02{}";
            let mut stream = wire.send(method, path, headers, body).await;
            let mut said = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
            ended.unwrap_or_else(|_| panic!("{:?} keeps the connection", server.kind)).ok();
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains("grpc-status: 0"), "{:?} {method} {path}: {said}", server.kind);
        }
        assert_eq!(server.naps.done(), 0);
        assert_serves(&server).await;
    }
}

#[tokio::test]
async fn messages_too_long_truncated_or_malformed_are_rejected_and_the_connection_continues() {
    let config = GrpcConfig { max_request_size: 1000, timeout: Duration::from_millis(500), ..GrpcConfig::default() };
    for server in Running::both(config).await {
        let channel = server.channel().await;
        for (frames, ends, code) in [
            // Announced, and refused before it is sent.
            (&[&b"\x00\x00\x00\x03\xe9"[..]][..], false, Code::OutOfRange),
            (&[b"\x00\xff\xff\xff\xff"], false, Code::OutOfRange),
            // The end comes before the end of the message, or of the five bytes before it.
            (&[b"\x00\x00\x00\x00\x64", b"{"], true, Code::Internal),
            (&[b"\x00\x00\x00"], true, Code::Internal),
            (&[], true, Code::Internal),
            // Compressed by what nobody has named, and by what nobody knows.
            (&[b"\x01\x00\x00\x00\x01x"], true, Code::Internal),
            (&[b"\x07\x00\x00\x00\x01x"], true, Code::Internal),
            // No message of protocol buffers.
            (&[b"\x00\x00\x00\x00\x04\xff\xff\xff\xff"], true, Code::Internal),
            // The rest does not come: the server's own limit ends it.
            (&[b"\x00\x00\x00\x00\x64", b"{"], false, Code::DeadlineExceeded),
        ] {
            let begun = Instant::now();
            let status = send(channel.clone(), frames, ends).await;
            assert_eq!(status.code(), code, "{:?} {frames:?} {ends}: {status}", server.kind);
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
            KernelClient::new(channel.clone()).execute(saxpy(1.0)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn clients_that_leave_half_way_cancel_their_work() {
    for server in Running::both(GrpcConfig::default()).await {
        for _ in 0..3 {
            let client = Elsewhere::execute(server.address, nap(600_000));
            server.naps.until(1).await;
            drop(client);
            server.naps.until(0).await;
        }
        assert_eq!(server.naps.done(), 0);
        // And half-way through its message: nothing has begun.
        let call = tokio::spawn(send(server.channel().await, &[b"\x00\x00\x00\x00\x64{"], false));
        tokio::time::sleep(Duration::from_millis(50)).await;
        call.abort();
        assert_serves(&server).await;
    }
}

#[tokio::test]
async fn a_kernel_that_panics_is_an_error_of_its_own_call_alone() {
    for server in Running::both(GrpcConfig::default()).await {
        let channel = server.channel().await;
        let mut other = KernelClient::new(channel.clone());
        let other = tokio::spawn(async move { other.execute(nap(300)).await });
        server.naps.until(1).await;
        let mut client = KernelClient::new(channel);
        for _ in 0..10 {
            let panics = ExecuteRequest { kernel_id: "test/panics".into(), input: "true".into() };
            let status = client.execute(panics).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{status}");
            assert!(!status.message().contains("told to"), "what a panic says is for the log: {status}");
        }
        assert_eq!(other.await.unwrap().unwrap().into_inner().output, r#"{"millis":[300]}"#);
        assert_serves(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_over_a_few_connections_each_get_their_own_response() {
    const CALLS: u32 = 1000;
    for server in Running::both(GrpcConfig::default()).await {
        let channels = join_all((0..4).map(|_| server.channel())).await;
        let calls = (0..CALLS).map(|call| {
            let mut client = KernelClient::new(channels[call as usize % channels.len()].clone());
            tokio::spawn(async move { client.execute(saxpy(call.into())).await })
        });
        for (call, response) in join_all(calls.collect::<Vec<_>>()).await.into_iter().enumerate() {
            let output = response.unwrap().unwrap().into_inner().output;
            assert_eq!(output, format!(r#"{{"y":[{}.0]}}"#, call + 2), "{:?}", server.kind);
        }
    }
}

/// Calls again and again until the server is gone, and gives how many answers it had.
async fn hammer(mut client: KernelClient<Channel>) -> usize {
    let mut responses = 0;
    loop {
        match client.execute(nap(3)).await {
            Ok(response) => assert_eq!(response.into_inner().output, r#"{"millis":[3]}"#),
            Err(_) => return responses,
        }
        responses += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_response() {
    for server in Running::both(GrpcConfig::default()).await {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let channel = server.channel().await;
            clients.extend((0..8).map(|_| tokio::spawn(hammer(KernelClient::new(channel.clone())))));
        }
        while server.naps.done() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), server.ended).await.expect("it ends").unwrap().unwrap();
        let done = server.naps.done();
        let mut responses = 0;
        for client in clients {
            responses += client.await.unwrap();
        }
        assert_eq!((responses, server.naps.done()), (done, done), "{:?}", server.kind);
        assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    }
}
