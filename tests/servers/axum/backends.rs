//! What `/metrics` and `/health` say of the work that backends hold.

use serde_json::json;

use crate::axum::server::{JSON, Server};

const UP: &str = r#"kernel_backend_up{backend="CPU"}"#;
const WORKERS: &str = r#"kernel_backend_workers{backend="CPU"}"#;
const CAPACITY: &str = r#"kernel_backend_capacity{backend="CPU"}"#;
const QUEUED: &str = r#"kernel_backend_queued{backend="CPU"}"#;
const RUNNING: &str = r#"kernel_backend_running{backend="CPU"}"#;

#[tokio::test]
async fn gauges_rise_with_what_runs_and_waits_and_return_to_zero() {
    let server = Server::start().await;
    let workers = server.metric(WORKERS).await.unwrap();
    let capacity = server.metric(CAPACITY).await.unwrap();
    assert!(workers >= 1.0 && capacity > workers, "{workers} workers, {capacity} capacity");
    assert_eq!(
        (server.metric(UP).await, server.metric(QUEUED).await, server.metric(RUNNING).await),
        (Some(1.0), Some(0.0), Some(0.0))
    );

    let body = json!({"kernel_id": "test/nap", "input": {"millis": 60_000}}).to_string();
    let mut clients = Vec::new();
    for _ in 0..workers as usize + 3 {
        clients.push(server.send("POST", "/execute", &[JSON], body.as_bytes()).await);
    }
    server.until(QUEUED, 3.0).await;
    server.until(RUNNING, workers).await;
    let pool = server.get("/health").await.json()["components"]["cpu"]["pool"].clone();
    assert_eq!((pool["queued"].as_f64(), pool["running"].as_f64()), (Some(3.0), Some(workers)), "{pool}");
    assert_eq!((&pool["up"], pool["capacity"].as_f64()), (&true.into(), Some(capacity)));

    drop(clients);
    server.until(QUEUED, 0.0).await;
    server.until(RUNNING, 0.0).await;
    assert_eq!(server.metric(UP).await, Some(1.0));
}

#[tokio::test]
async fn a_full_backend_shows_its_whole_capacity_taken_and_no_more() {
    let server = Server::start().await;
    let workers = server.metric(WORKERS).await.unwrap();
    let capacity = server.metric(CAPACITY).await.unwrap();
    let body = json!({"kernel_id": "test/nap", "input": {"millis": 60_000}}).to_string();
    let mut clients = Vec::new();
    for _ in 0..capacity as usize + 2 {
        clients.push(server.send("POST", "/execute", &[JSON], body.as_bytes()).await);
    }
    server.until(QUEUED, capacity - workers).await;
    server.until(RUNNING, workers).await;
    drop(clients);
    // Clients are seen to leave one by one: those that run may be gone before the last of those that wait.
    server.until(QUEUED, 0.0).await;
    server.until(RUNNING, 0.0).await;
}
