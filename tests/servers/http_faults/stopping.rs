//! Servers that are told to stop.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower_kernels::hyper::listen;

use crate::http_faults::server::{RUN_NAP, RUN_SAXPY, SAXPY, Server, Setup};
use crate::support::http_client::{HttpResponse, JSON, Wire, post};
use crate::support::kernels::registry;

#[allow(dead_code, reason = "the example's `main` and its signals are not used here")]
#[path = "../../../examples/axum_server.rs"]
mod axum_server;

/// Asks again and again, half of the time on a new connection, and gives how many answers it had. A connection may end
/// before an answer has begun, never within one.
async fn hammer(wire: Wire) -> usize {
    let mut responses = 0;
    while let Ok(stream) = TcpStream::connect(wire.address).await {
        let mut stream = BufReader::new(stream);
        for _ in 0..10 {
            if stream.write_all(post(RUN_NAP, r#"{"millis": 3}"#).as_bytes()).await.is_err() {
                break;
            }
            let Some(response) = HttpResponse::next(&mut stream).await.expect("whole answers only") else { break };
            assert_eq!((response.status, &response.json()["output"]["millis"]), (200, &json!([3])));
            responses += 1;
            if response.header("connection") == Some("close") {
                break;
            }
        }
    }
    responses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_started_request_gets_its_full_response_and_none_starts_after_the_stop() {
    for server in Server::all(&Setup::default()) {
        let clients: Vec<_> = (0..32).map(|_| tokio::spawn(hammer(*server))).collect();
        while server.naps.done() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.stop.send(()).unwrap();
        server.ended.await.unwrap().unwrap();
        let done = server.naps.done();
        assert_eq!((server.connections.open(), server.connections.requests_in_flight()), (0, 0));
        let mut responses = 0;
        for client in clients {
            responses += client.await.unwrap();
        }
        assert_eq!((responses, server.naps.done()), (done, done));
    }
}

#[tokio::test]
async fn idle_connections_are_closed_at_once_and_others_after_a_response_that_says_so() {
    for server in Server::all(&Setup::default()) {
        let wire = *server;
        let mut fresh = server.say("").await;
        let mut idle = BufReader::new(server.say(post(RUN_SAXPY, SAXPY)).await);
        assert_eq!(HttpResponse::next(&mut idle).await.unwrap().unwrap().status, 200);
        let mut runs = BufReader::new(server.say(post(RUN_NAP, r#"{"millis": 1000}"#)).await);
        server.naps.until(1).await;
        server.stop.send(()).unwrap();
        let begun = Instant::now();
        assert_eq!(fresh.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
        assert!(TcpStream::connect(wire.address).await.is_err(), "nobody listens any more");
        let response = HttpResponse::next(&mut runs).await.unwrap().unwrap();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        server.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_request_sent_before_the_stop_gets_its_response() {
    for server in Server::all(&Setup::default()) {
        let mut streams = Vec::new();
        // Most of them wait in the backlog: the server's task has had no turn yet.
        for _ in 0..100 {
            let stream = std::net::TcpStream::connect(server.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            std::io::Write::write_all(&mut &stream, post(RUN_SAXPY, SAXPY).as_bytes()).unwrap();
            streams.push(stream);
        }
        server.stop.send(()).unwrap();
        for stream in streams {
            assert_eq!(HttpResponse::receive(TcpStream::from_std(stream).unwrap()).await.status, 200);
        }
        server.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_that_outlast_the_drain_are_cancelled_and_counted() {
    for server in Server::all(&Setup { drain: Duration::from_millis(200), ..Setup::default() }) {
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(server.say(post(RUN_NAP, r#"{"millis": 600000}"#)).await);
        }
        server.naps.until(3).await;
        server.stop.send(()).unwrap();
        let error = server.ended.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("3 requests on 3 connections were cancelled"), "{error}");
        assert_eq!((server.connections.open(), server.connections.requests_in_flight()), (0, 0));
        server.naps.until(0).await;
        assert_eq!(server.naps.done(), 0);
        for mut stream in streams {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text).await;
            assert_eq!(text, b"");
        }
    }
}

/// The server is that of `examples/axum_server.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_gives_notice_first_and_completes_all_requests_in_flight() {
    let (registry, _) = registry();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let wire = Wire { address: listener.local_addr().unwrap() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.map_err(std::io::Error::other) };
    let ended = tokio::spawn(axum_server::serve(listener, Arc::clone(&registry), stopped));

    let mut streams = Vec::new();
    for _ in 0..40 {
        // Twice as long as the notice in all, so that some are in flight when connections are refused.
        streams.push(wire.send("POST", RUN_NAP, &[JSON], br#"{"millis": 150}"#).await);
    }
    stop.send(()).unwrap();
    let begun = Instant::now();
    while wire.get("/health/ready").await.status != 503 {
        assert!(begun.elapsed().as_secs() < 10);
    }
    for stream in streams {
        let response = HttpResponse::receive(stream).await;
        assert_eq!((response.status, &response.json()["output"]), (200, &json!({"millis": [150]})));
    }
    ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(wire.address).await.is_err(), "nobody listens any more");
}
