//! Everything that a client can do wrong has its status, and harms nobody else.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tower_kernels::axum::RouterConfig;

use crate::server::{Answer, JSON, Server};

fn saxpy(input: Value) -> Value {
    json!({"kernel_id": "linalg/saxpy", "input": input})
}

#[tokio::test]
async fn every_refusal_has_its_status_and_says_why() {
    let server = Server::start().await;
    for (body, status, code, says) in [
        (json!({"kernel_id": "no/such", "input": {}}), 404, "not_found", "no/such"),
        (json!({"kernel_id": "orderbook/matching", "input": {}}), 422, "unsupported", "ring runtime"),
        (json!({"kernel_id": "linalg/saxpy"}), 400, "invalid_argument", "input"),
        (json!([]), 400, "invalid_argument", ""),
        (saxpy(json!({"a": 1, "x": [1], "y": []})), 400, "invalid_argument", "y"),
        (json!({"kernel_id": "test/panics", "input": true}), 500, "internal", "told to"),
    ] {
        let answer = server.post("/execute", &body).await;
        assert!(answer.problem(status, code).contains(says), "{body}: {answer:?}");
    }
    let wrong = server.post("/execute", &saxpy(json!({"a": 1, "x": ["1"], "y": [1]}))).await;
    assert!(wrong.problem(400, "invalid_argument").starts_with("the input is invalid: x[0]: "), "{wrong:?}");
    assert_eq!(wrong.json()["field"], "x[0]");
    assert_eq!(server.post("/execute", &saxpy(json!({"a": 1, "x": [1], "y": [1]}))).await.status, 200);
    assert_eq!(server.metric("kernel_http_responses_total{code=\"invalid_argument\"}").await, Some(4.0));
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let server = Server::start().await;
    for path in ["/", "/nowhere", "/kernels/no/such", "/kernels/execute"] {
        server.get(path).await.problem(404, "not_found");
    }
    server.post("/kernels/no/such/execute", &json!({})).await.problem(404, "not_found");
    server.get("/kernels/%FF").await.problem(400, "invalid_argument");
    for (method, path, allow) in [
        ("GET", "/execute", "POST"),
        ("DELETE", "/kernels", "GET"),
        ("POST", "/health", "GET"),
        ("PUT", "/metrics", "GET"),
        ("POST", "/kernels/linalg/saxpy", "GET"),
        ("GET", "/kernels/linalg/saxpy/execute", "POST"),
    ] {
        let answer = server.request(method, path, &[JSON], b"{}").await;
        answer.problem(405, "method_not_allowed");
        assert!(answer.header("allow").unwrap().contains(allow), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_plain_json_is_refused_by_its_type() {
    let server = Server::start().await;
    let body = saxpy(json!({"a": 1, "x": [1], "y": [1]})).to_string();
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[JSON, ("content-encoding", "gzip")],
    ] {
        let answer = server.request("POST", "/execute", headers, body.as_bytes()).await;
        answer.problem(415, "unsupported_media_type");
    }
    for content_type in ["application/json; charset=utf-8", "application/vnd.acme+json"] {
        let answer = server.request("POST", "/execute", &[("content-type", content_type)], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let config = RouterConfig { max_request_size: 1000, ..RouterConfig::default() };
    let server = Server::with_config(config).await;
    let body = saxpy(json!({"a": 1, "x": [1], "y": [1]})).to_string();
    let fits = format!("{body:1000}");
    assert_eq!(server.request("POST", "/execute", &[JSON], fits.as_bytes()).await.status, 200);
    let over = format!("{body:1001}");
    server.request("POST", "/execute", &[JSON], over.as_bytes()).await.problem(413, "too_large");

    // Refused before it is sent.
    let announced = [JSON, ("content-length", "1001"), ("expect", "100-continue")];
    let answer = server.request("POST", "/execute", &announced, b"").await;
    assert!(answer.problem(413, "too_large").contains("1000 bytes"));

    let chunked = format!("3E9\r\n{over}\r\n0\r\n\r\n");
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = "POST /execute HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let answer = say(stream, &format!("{head}transfer-encoding: chunked\r\n\r\n{chunked}")).await;
    answer.problem(413, "too_large");
}

async fn say(mut stream: tokio::net::TcpStream, text: &str) -> Answer {
    stream.write_all(text.as_bytes()).await.unwrap();
    Answer::receive(stream).await
}

#[tokio::test]
async fn malformed_and_truncated_documents_name_what_is_wrong() {
    let server = Server::start().await;
    let body = saxpy(json!({"a": 1, "x": [1], "y": [1]})).to_string();
    for end in 0..body.len() {
        let answer = server.request("POST", "/execute", &[JSON], &body.as_bytes()[..end]).await;
        answer.problem(400, "invalid_argument");
    }
    for bytes in [&b"\xff\xfe"[..], b"{\"kernel_id\": \"\xc3\x28\", \"input\": 1}", b"nul", &[b'['; 100_000]] {
        server.request("POST", "/execute", &[JSON], bytes).await.problem(400, "invalid_argument");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    let server = Server::start().await;
    let slow = [JSON, ("content-length", "1000"), ("connect-timeout-ms", "50")];
    let answer = server.request("POST", "/execute", &slow, b"{").await;
    answer.problem(408, "request_timeout");
}

#[tokio::test]
async fn a_client_that_breaks_off_its_body_leaves_nothing_behind() {
    let server = Server::start().await;
    for _ in 0..20 {
        let announced = [JSON, ("content-length", "1000")];
        drop(server.send("POST", "/execute", &announced, b"{\"kernel_id\":").await);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let fine = server.post("/execute", &saxpy(json!({"a": 1, "x": [1], "y": [1]}))).await;
    assert_eq!(fine.status, 200);
    assert_eq!(server.metric("kernel_requests_in_flight{operation=\"linalg/saxpy\"}").await, Some(0.0));
}
