//! Clients that stop reading their responses.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::streams::{metric_of, until_metric};
use crate::support::process::Server;

const PATH: &str = "/kernels/linalg/saxpy/execute";

/// Tensors for saxpy, of so many numbers, and the length of their head.
fn tensors(numbers: usize) -> (Vec<u8>, usize) {
    let tensor = |name: &str| {
        let parameters = serde_json::json!({"binary_data_size": 4 * numbers});
        serde_json::json!({"name": name, "datatype": "FP32", "shape": [numbers], "parameters": parameters})
    };
    let a = serde_json::json!({"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]});
    let head = serde_json::json!({"inputs": [a, tensor("x"), tensor("y")]}).to_string();
    let mut body = head.clone().into_bytes();
    body.resize(head.len() + 8 * numbers, 0);
    (body, head.len())
}

/// An HTTP/2 connection that lets through this much of a response before it is read.
async fn connect(server: SocketAddr, window: u32) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    let (client, connection) =
        builder.initial_stream_window_size(window).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A response of 4 bytes for each number, whose body is yet to be read.
async fn response(client: &mut SendRequest<Full<Bytes>>, numbers: usize) -> Response<Incoming> {
    let (body, head) = tensors(numbers);
    let request = Request::post(format!("http://test{PATH}"))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("inference-header-content-length", head)
        .body(Full::from(body))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_are_reset_and_others_of_the_connection_are_not() {
    const STREAMS: usize = 8;
    let server = Server::start(&["--connections-write-timeout=1s"]);
    let mut client = connect(server.rest, 1000).await;
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        unread.push(response(&mut client, 1_000_000).await);
    }
    let reset = until_metric(&server, "kernel_streams_reset_total", |reset| reset >= STREAMS as f64);
    assert_eq!(reset, STREAMS as f64);
    for response in unread {
        let error = response.into_body().collect().await.unwrap_err();
        assert!(error.to_string().contains("body") || error.is_canceled(), "{error:?}");
    }
    // The connection is as good as before.
    let small = response(&mut client, 10).await.into_body().collect().await.unwrap().to_bytes();
    assert!(small.len() > 40, "{small:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_little_now_and_then_is_not_reading_and_a_steady_pace_is() {
    let server = Server::start(&["--connections-write-timeout=4s"]);
    let (mut trickles, mut reads) = (connect(server.rest, 100).await, connect(server.rest, 16 << 10).await);

    let steady = tokio::spawn(async move {
        let mut body = response(&mut reads, 250_000).await.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        bytes
    });
    // 100 bytes each time, and so 250 times as long as may be waited for the whole.
    let mut body = response(&mut trickles, 250_000).await.into_body();
    let mut bytes = 0;
    loop {
        match body.frame().await {
            Some(Ok(frame)) => bytes += frame.into_data().unwrap().len(),
            Some(Err(_)) => break,
            None => panic!("all {bytes} bytes were sent"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(bytes < 100_000, "{bytes} bytes were sent");
    assert!(steady.await.unwrap() > 1_000_000);
    assert_eq!(metric_of(&server, "kernel_streams_reset_total", "rest"), 1.0);
}

#[test]
fn http1_connections_that_are_not_read_are_closed() {
    let server = Server::start(&["--connections-write-timeout=1s", "--rest-max-request-size=60000000"]);
    let (body, head) = tensors(6_000_000);
    let mut stream = TcpStream::connect(server.rest).unwrap();
    write!(
        stream,
        "POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-type: application/octet-stream\r\n\
         inference-header-content-length: {head}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body).unwrap();
    until_metric(&server, "kernel_connections_closed_total", |closed| closed >= 1.0);
    assert_eq!(metric_of(&server, "kernel_connections_closed_total", "slow"), 1.0);
}
