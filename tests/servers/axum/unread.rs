//! Requests that are answered without their body, behind axum's own server.

use crate::support::kernels;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tower_kernels::axum::{KernelRouter, RouterConfig};

use crate::axum::server::{JSON, Server};
use crate::support::http_client::{HttpResponse, head};

const BODY: &str = r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#;

/// Requests that are answered by their head, with the status.
const EARLY: [(&str, &str, (&str, &str), u16); 8] = [
    ("POST", "/nowhere", JSON, 404),
    ("POST", "/kernels/none/such/execute", JSON, 404),
    ("PUT", "/kernels/linalg/saxpy", JSON, 405),
    ("POST", "/health", JSON, 405),
    ("POST", "/execute", ("content-type", "text/plain"), 415),
    ("POST", "/execute", ("grpc-timeout", "soon"), 400),
    ("GET", "/kernels", JSON, 200),
    ("GET", "/health/live", JSON, 200),
];

#[tokio::test]
async fn a_small_body_is_read_and_the_connection_goes_on() {
    let server = Server::with_config(RouterConfig { max_request_size: 1 << 20, ..RouterConfig::default() }).await;
    for (method, path, header, status) in EARLY {
        let mut stream = BufReader::new(server.say(head(method, path, &[header], Some(BODY.len()), true)).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(BODY.as_bytes()).await.unwrap();
        let response = HttpResponse::next(&mut stream).await.unwrap().unwrap();
        assert_eq!((response.status, response.header("connection")), (status, None), "{method} {path}: {response:?}");
        stream.write_all(head("GET", "/health/live", &[], None, true).as_bytes()).await.unwrap();
        let next = HttpResponse::next(&mut stream).await.unwrap();
        assert_eq!(next.map(|next| next.status), Some(200), "{method} {path}");
    }
}

#[tokio::test]
async fn with_a_long_one_the_response_says_that_the_connection_ends() {
    let server = Server::with_config(RouterConfig { max_request_size: 1 << 20, ..RouterConfig::default() }).await;
    for (method, path, header, status) in EARLY {
        let mut stream = BufReader::new(server.say(head(method, path, &[header], Some(100_000), true)).await);
        let response = HttpResponse::next(&mut stream).await.unwrap().unwrap();
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{method} {path}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "{method} {path}");
    }
}

#[tokio::test]
async fn the_response_of_a_layer_has_the_request_id() {
    use tower::ServiceBuilder;
    use tower_kernels::layers::{ErrorResponseLayer, RateLimiterLayer};

    let config = RouterConfig { cors_enabled: true, ..RouterConfig::default() };
    let limit = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(RateLimiterLayer::new(1, Duration::from_secs(3600)));
    let server = Server::serve(KernelRouter::new(kernels::registry().0, config).into_router_with(limit)).await;
    assert_eq!(server.get("/health/live").await.status, 200);
    let rejected = server.request("GET", "/health/live", &[("x-request-id", "job-7")], b"").await;
    rejected.problem(429, "rate_limited");
    assert_eq!(rejected.header("x-request-id"), Some("job-7"));
    assert_eq!(rejected.header("access-control-allow-origin"), Some("*"));
}
