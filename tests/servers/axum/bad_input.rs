//! Refusals that are this adapter's own; `tests/http_faults` has those of both.

use serde_json::{Value, json};

use crate::axum::server::{JSON, Server};

fn saxpy(input: Value) -> Value {
    json!({"kernel_id": "linalg/saxpy", "input": input})
}

#[tokio::test]
async fn every_rejection_has_its_status_and_reason() {
    let server = Server::start().await;
    // The test server has no device.
    let cuda =
        json!({"kernel_id": "linalg/saxpy", "input": {"a": 1, "x": [1], "y": [1]}, "metadata": {"backend": "cuda"}});
    for (body, status, code, says) in [
        (json!({"kernel_id": "no/such", "input": {}}), 404, "not_found", "no/such"),
        (json!({"kernel_id": "orderbook/matching", "input": {}}), 422, "unsupported", "ring runtime"),
        (cuda, 422, "unsupported", "no CUDA backend"),
        (json!({"kernel_id": "linalg/saxpy"}), 400, "invalid_argument", "input"),
        (json!([]), 400, "invalid_argument", ""),
        (saxpy(json!({"a": 1, "x": [1], "y": []})), 400, "invalid_argument", "y"),
        (json!({"kernel_id": "test/panics", "input": true}), 500, "internal", "an internal error"),
    ] {
        let response = server.post("/execute", &body).await;
        assert!(response.problem(status, code).contains(says), "{body}: {response:?}");
        assert!(!response.body.contains("told to"), "what a panic says is for the log: {response:?}");
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
    for path in ["/nowhere", "/kernels/no/such", "/kernels/execute"] {
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
        let response = server.request(method, path, &[JSON], b"{}").await;
        response.problem(405, "method_not_allowed");
        assert!(response.header("allow").unwrap().contains(allow), "{method} {path}: {response:?}");
    }
}

#[tokio::test]
async fn what_a_path_takes_is_said_of_the_path_itself() {
    let server = Server::start().await;
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        for (path, allow) in [("/kernels/linalg/saxpy", "GET, HEAD"), ("/kernels/linalg/saxpy/execute", "POST")] {
            let response = server.request(method, path, &[], b"").await;
            response.problem(405, "method_not_allowed");
            assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
        }
        server.request(method, "/kernels/no/such", &[], b"").await.problem(404, "not_found");
    }
}
