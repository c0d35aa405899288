//! Running kernels: both routes, the request's id, its metadata and deadlines.

use serde_json::{Value, json};

use crate::axum::server::{JSON, Server};

#[tokio::test]
async fn the_document_gets_the_response_that_the_page_shows() {
    let server = Server::start().await;
    let input = json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "normalized": true});
    let response = server.post("/execute", &json!({"kernel_id": "graph/betweenness-centrality", "input": input})).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")), "{response:?}");
    let document = response.json();
    assert_eq!(document["request_id"].as_str(), response.header("x-request-id"));
    assert_eq!(document["kernel_id"], "graph/betweenness-centrality");
    assert_eq!(document["output"]["scores"].as_array().unwrap().len(), 4);
    assert!(document["metadata"]["duration_us"].is_u64() && document["metadata"]["backend"].is_string());
}

#[tokio::test]
async fn the_input_alone_is_taken_where_the_path_names_the_kernel() {
    let server = Server::start().await;
    let input = json!({"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]});
    for path in ["/kernels/linalg/saxpy/execute", "/kernels/linalg%2Fsaxpy/execute"] {
        let document = server.post(path, &input).await.json();
        assert_eq!(
            (&document["kernel_id"], &document["output"]),
            (&"linalg/saxpy".into(), &json!({"y": [12.0, 24.0]}))
        );
    }
    let by_alias = server.post("/kernels/rest/nap/execute", &json!({"millis": 0})).await;
    assert_eq!(by_alias.json()["output"], json!({"millis": [0]}));
    assert_eq!(by_alias.json()["kernel_id"], "rest/nap", "as in the request");
    // The document is no input.
    let document = json!({"kernel_id": "linalg/saxpy", "input": input});
    server.post("/kernels/linalg/saxpy/execute", &document).await.problem(400, "invalid_argument");
}

#[tokio::test]
async fn all_names_of_a_kernel_share_its_metrics() {
    let server = Server::start().await;
    for path in ["/kernels/test/nap/execute", "/kernels/rest/nap/execute", "/kernels/nap/execute"] {
        assert_eq!(server.post(path, &json!({"millis": 0})).await.status, 200);
    }
    let document = json!({"kernel_id": "nap", "input": {"millis": 0}});
    assert_eq!(server.post("/execute", &document).await.json()["kernel_id"], "nap");
    assert_eq!(
        server.metric(r#"kernel_requests_total{operation="test/nap",backend="CPU",outcome="ok"}"#).await,
        Some(4.0)
    );
    let page = server.get("/metrics").await;
    assert!(!page.body.contains(r#"operation="nap""#) && !page.body.contains("rest/nap"), "{}", page.body);
}

#[tokio::test]
async fn the_clients_request_id_is_in_responses_and_rejections() {
    let server = Server::start().await;
    let id = ("x-request-id", "job-7/a");
    for (body, status) in [(r#"{"kernel_id": "test/nap", "input": {"millis": 0}}"#, 200), ("{", 400)] {
        let response = server.request("POST", "/execute", &[JSON, id], body.as_bytes()).await;
        assert_eq!((response.status, response.header("x-request-id")), (status, Some("job-7/a")));
        assert_eq!(response.json()["request_id"], "job-7/a");
    }
    for path in ["/kernels", "/kernels/no/such", "/nowhere", "/health", "/health/live", "/health/ready", "/metrics"] {
        let response = server.request("GET", path, &[id], b"").await;
        assert_eq!(response.header("x-request-id"), Some("job-7/a"), "{path}");
    }
    let long = "a".repeat(200);
    let response = server.request("GET", "/kernels", &[("x-request-id", &long)], b"").await;
    assert!(response.header("x-request-id").unwrap().starts_with("req-"));
}

#[tokio::test]
async fn every_deadline_ends_the_work_in_time() {
    let server = Server::start().await;
    let nap = |metadata: Value| json!({"kernel_id": "test/nap", "input": {"millis": 60_000}, "metadata": metadata});
    let begun = std::time::Instant::now();
    for (header, metadata) in [
        (("grpc-timeout", "30m"), json!({})),
        (("connect-timeout-ms", "30"), json!({})),
        (("grpc-timeout", "1H"), json!({"timeout_ms": 30})),
        (("grpc-timeout", "30m"), json!({"timeout_ms": 3_600_000})),
    ] {
        let body = nap(metadata).to_string();
        let response = server.request("POST", "/execute", &[JSON, header], body.as_bytes()).await;
        assert!(response.problem(504, "deadline_exceeded").contains("deadline"), "{header:?}");
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    let headers = [JSON, ("grpc-timeout", "soon")];
    let response = server.request("POST", "/execute", &headers, nap(json!({})).to_string().as_bytes()).await;
    assert!(response.problem(400, "invalid_argument").contains("grpc-timeout"));
    assert_eq!(response.json()["field"], "grpc-timeout");
    server.until("kernel_requests_in_flight{operation=\"test/nap\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_all_get_responses() {
    let server = std::sync::Arc::new(Server::start().await);
    let clients: Vec<_> = (0..400)
        .map(|i| {
            let server = std::sync::Arc::clone(&server);
            let input = json!({"a": 1.0, "x": [f64::from(i)], "y": [1.0]});
            tokio::spawn(async move { server.post("/kernels/linalg/saxpy/execute", &input).await.json() })
        })
        .collect();
    for (i, client) in clients.into_iter().enumerate() {
        assert_eq!(client.await.unwrap()["output"], json!({"y": [i as f64 + 1.0]}));
    }
    server.until("kernel_http_responses_total{code=\"ok\"}", 400.0).await;
}
