//! Clients that hang up, and servers that are told to stop. The server is that of `examples/axum_server.rs`.

use std::sync::Arc;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tower_kernels::axum::DrainHandle;

use crate::server::{Answer, JSON, Server, registry};

#[allow(dead_code, reason = "the example's `main` and its signals are not used here")]
#[path = "../../examples/axum_server.rs"]
mod axum_server;

const IN_FLIGHT: &str = "kernel_requests_in_flight{operation=\"test/nap\"}";

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_kernel() {
    let server = Server::start().await;
    let stream = server.send("POST", "/kernels/test/nap/execute", &[JSON], br#"{"millis": 600000}"#).await;
    server.until(IN_FLIGHT, 1.0).await;
    drop(stream);
    server.until(IN_FLIGHT, 0.0).await;
    let cancelled = r#"kernel_requests_total{operation="test/nap",backend="none",outcome="cancelled"}"#;
    assert_eq!(server.metric(cancelled).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_says_so_answers_all_that_is_in_flight_and_ends() {
    const CLIENTS: usize = 40;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), drain: DrainHandle::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.map_err(std::io::Error::other) };
    let ended = tokio::spawn(axum_server::serve(listener, Arc::new(registry()), stopped));

    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        // Twice as long as the notice in all, so that some are in flight when connections are refused.
        streams.push(server.send("POST", "/kernels/test/nap/execute", &[JSON], br#"{"millis": 150}"#).await);
    }
    stop.send(()).unwrap();
    let begun = std::time::Instant::now();
    while server.get("/health/ready").await.status != 503 {
        assert!(begun.elapsed().as_secs() < 10);
    }
    for stream in streams {
        let answer = Answer::receive(stream).await;
        assert_eq!((answer.status, &answer.json()["output"]), (200, &json!({"millis": 150})));
    }
    ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}
