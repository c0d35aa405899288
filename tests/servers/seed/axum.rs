//! "Axum REST API".

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CYCLE, assert_scores, assert_shape, input};

const JSON: &str = "Content-Type: application/json\r\n";

async fn request(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a body for its size need not read it.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut response = Vec::new();
        let read = stream.read_to_end(&mut response).await;
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {response:?}"));
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("an answer in time")
}

async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = request(address, "GET", path, "", "").await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, body) = request(address, "POST", path, JSON, &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

mod quick_start {
    use super::{Sender, SocketAddr};
    use std::sync::Arc;
    use tower_kernels::axum::{KernelRouter, RouterConfig};
    use tower_kernels::service::KernelRegistry;

    #[tokio::main]
    pub(super) async fn program(address: SocketAddr, bound: Sender<SocketAddr>) {
        // Create and populate registry
        let registry = Arc::new(KernelRegistry::new());
        tower_kernels::kernels::register_all(&registry).unwrap();

        // Build router — all endpoints perform real kernel execution
        let router = KernelRouter::new(registry, RouterConfig::default());
        let app = router.into_router();

        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        bound.send(listener.local_addr().unwrap()).unwrap();
        axum::serve(listener, app).await.unwrap();
    }
}

/// Starts the quick start's program, which runs until the process ends.
fn start() -> SocketAddr {
    let (sender, bound) = channel();
    std::thread::spawn(|| quick_start::program("127.0.0.1:0".parse().unwrap(), sender));
    bound.recv_timeout(Duration::from_secs(60)).expect("a server")
}

#[tokio::test]
async fn execute_request() {
    let address = start();
    // What curl sends.
    let body = r#"{
    "kernel_id": "graph/betweenness-centrality",
    "input": {
      "num_nodes": 4,
      "edges": [[0, 1], [1, 2], [2, 3], [0, 3]],
      "normalized": true
    }
  }"#;
    let (status, head, response) = request(address, "POST", "/execute", JSON, body).await;
    assert!(status == 200 && head.contains("content-type: application/json"), "{head}");
    let response: Value = serde_json::from_str(&response).unwrap();
    let page = json!({
        "request_id": "req-abc123",
        "kernel_id": "graph/betweenness-centrality",
        "output": {
            "scores": [0.3333, 0.6667, 0.6667, 0.3333]
        },
        "metadata": {
            "duration_us": 850,
            "backend": "CPU"
        }
    });
    assert_shape(&response, &page);
    assert_scores(&response["output"], CYCLE);
    assert_eq!(response["kernel_id"], page["kernel_id"]);
    assert!(response["request_id"].as_str().unwrap().starts_with("req-"), "{response}");
    assert!(response["metadata"]["duration_us"].is_u64(), "{response}");
}

#[tokio::test]
async fn endpoints() {
    let address = start();
    let (status, kernels) = get(address, "/kernels").await;
    assert_eq!(status, 200);
    let ids: Vec<_> = kernels["kernels"].as_array().unwrap().iter().map(|kernel| &kernel["id"]).collect();
    assert!(ids.contains(&&"graph/betweenness-centrality".into()), "{kernels}");
    let (status, kernel) = get(address, "/kernels/graph/betweenness-centrality").await;
    assert!(status == 200 && kernel["input_schema"].is_object() && kernel["mode"] == "batch", "{kernel}");

    let document = json!({"kernel_id": "graph/betweenness-centrality", "input": input()});
    assert_eq!(post(address, "/execute", &document).await.0, 200);
    let (status, _, page) = request(address, "GET", "/metrics", "", "").await;
    assert_eq!(status, 200);
    let by_domain = r#"kernel_domain_requests_total{domain="graph",outcome="ok"} 1"#;
    assert!(page.lines().any(|line| line == by_domain), "{page}");
}

#[tokio::test]
async fn health_check() {
    let (status, health) = get(start(), "/health").await;
    let page = json!({
        "status": "healthy",
        "components": {
            "registry": { "status": "healthy", "kernel_count": 106 },
            "execution": { "status": "healthy", "error_rate": 0.0 }
        }
    });
    assert_shape(&health, &page);
    assert_eq!((status, &health["status"]), (200, &page["status"]));
    assert_eq!(health["components"]["execution"]["error_rate"], 0.0);
    assert!(health["components"]["registry"]["kernel_count"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn custom_configuration() {
    use tower_kernels::axum::{KernelRouter, RouterConfig};

    let config = RouterConfig {
        prefix: "/api/v1".to_string(),
        enable_metrics: true,
        enable_health: true,
        cors_enabled: true,
        max_request_size: 10 * 1024 * 1024, // 10 MB
    };

    let app = KernelRouter::new(crate::seed::registry(), config).into_router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { ::axum::serve(listener, app).await });

    let document = json!({"kernel_id": "graph/betweenness-centrality", "input": input()});
    let (status, response) = post(address, "/api/v1/execute", &document).await;
    assert_eq!(status, 200);
    assert_scores(&response["output"], CYCLE);
    assert_eq!(post(address, "/execute", &document).await.0, 404);
    assert_eq!(request(address, "GET", "/metrics", "", "").await.0, 200);
    assert_eq!(get(address, "/health").await.0, 200);

    let asked = "Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n";
    let (status, head, _) = request(address, "OPTIONS", "/api/v1/execute", asked, "").await;
    assert!(status == 200 && head.contains("access-control-allow-origin: *"), "{head}");
    let (status, head, _) = request(address, "GET", "/api/v1/kernels", "Origin: https://example.org\r\n", "").await;
    assert!(status == 200 && head.contains("access-control-allow-origin: *"), "{head}");

    for (length, expected) in [(10 * 1024 * 1024, 400), (10 * 1024 * 1024 + 1, 413)] {
        let body = " ".repeat(length);
        assert_eq!(request(address, "POST", "/api/v1/execute", JSON, &body).await.0, expected, "{length} bytes");
    }
}

#[tokio::test]
async fn ring_kernels_are_described_and_not_executed() {
    let address = start();
    let (status, kernel) = get(address, "/kernels/orderbook/matching").await;
    assert_eq!((status, &kernel["mode"]), (200, &"ring".into()), "{kernel}");
    let (status, problem) = post(address, "/execute", &json!({"kernel_id": "orderbook/matching", "input": {}})).await;
    assert_eq!((status, &problem["code"]), (422, &"unsupported".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("ring"), "{problem}");
}
