//! Very many clients, clients that leave, and kernels that take no notice of either.

use std::process::Command;
use std::time::Duration;

use http_body_util::Empty;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tower_kernels::hyper::{self, ServerConfig, listen};

use crate::http_faults::server::{LONG, RUN_NAP, RUN_SAXPY, SAXPY, Server, Setup};
use crate::support::http_client::{HttpResponse, JSON, Wire, post};

/// Runs a test of this file in a process that may open so many files, and says so with `true`; in that process, `false`.
fn with_limit_on_files(test: &str, files: u32) -> bool {
    const KEY: &str = "TOWER_KERNELS_TEST_FILES";
    if std::env::var_os(KEY).is_some() {
        return false;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {files} && exec \"$@\""), "sh"]);
    shell.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        &format!("http_faults::clients::{test}"),
        "--nocapture",
    ]);
    let output = shell.env(KEY, files.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    true
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_are_all_served_each_more_than_once() {
    const CLIENTS: usize = 1000;
    if with_limit_on_files("a_thousand_connections_at_once_are_all_served_each_more_than_once", 4096) {
        return;
    }
    for server in Server::all(&Setup::default()) {
        let wire = *server;
        let (open, all_open) = tokio::sync::watch::channel(false);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let mut all_open = all_open.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(wire.say("").await);
                    all_open.wait_for(|open| *open).await.unwrap();
                    for request in 0..4 {
                        let input = json!({"a": 1.0, "x": [client], "y": [request]}).to_string();
                        stream.write_all(post(RUN_SAXPY, &input).as_bytes()).await.unwrap();
                        let response = HttpResponse::next(&mut stream).await.unwrap().expect("an answer");
                        assert_eq!(response.json()["output"]["y"][0], (client + request) as f64);
                    }
                })
            })
            .collect();
        server.until_open(CLIENTS).await;
        open.send(true).unwrap();
        for client in clients {
            client.await.unwrap();
        }
        server.until_open(0).await;
        assert_eq!((server.connections.accepted(), server.connections.failed()), (CLIENTS as u64, 0));
    }
}

/// What it comes to where the limit on connections is above the process's own.
#[cfg(unix)]
#[tokio::test]
async fn out_of_files_it_goes_on_serving_who_is_there_lets_others_in_later_and_can_be_stopped() {
    if with_limit_on_files("out_of_files_it_goes_on_serving_who_is_there_lets_others_in_later_and_can_be_stopped", 64) {
        return;
    }
    for server in Server::all(&Setup::default()) {
        let mut inside = BufReader::new(server.say(post(RUN_SAXPY, SAXPY)).await);
        assert_eq!(HttpResponse::next(&mut inside).await.unwrap().unwrap().status, 200);
        let mut crowd = Vec::new();
        while server.connections.failed() == 0 {
            match tokio::net::TcpStream::connect(server.address).await {
                Ok(stream) => crowd.push(stream),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        inside.write_all(post(RUN_SAXPY, SAXPY).as_bytes()).await.unwrap();
        assert_eq!(HttpResponse::next(&mut inside).await.unwrap().unwrap().status, 200);
        crowd.truncate(2);
        server.assert_serves().await;

        while let Ok(stream) = tokio::net::TcpStream::connect(server.address).await {
            crowd.push(stream);
        }
        server.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), server.ended).await.expect("it stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn where_there_are_as_many_connections_as_may_be_the_next_one_waits() {
    let limits = ServerConfig { max_connections: 2, ..ServerConfig::default() };
    for server in Server::all(&Setup { limits, ..Setup::default() }) {
        let mut inside = vec![server.say("").await, server.say("").await];
        server.until_open(2).await;
        let mut waits = BufReader::new(server.say(post(RUN_SAXPY, SAXPY)).await);
        let early = tokio::time::timeout(Duration::from_millis(100), waits.read_u8()).await;
        assert!(early.is_err() && server.connections.open() == 2, "{early:?}");
        drop(inside.pop());
        assert_eq!(HttpResponse::next(&mut waits).await.unwrap().unwrap().status, 200);
        // Full once more, it can be stopped all the same.
        server.stop.send(()).unwrap();
        server.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn clients_that_leave_cancel_their_kernels() {
    for server in Server::all(&Setup::default()) {
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(server.say(post(RUN_NAP, r#"{"millis": 600000}"#)).await);
        }
        server.naps.until(3).await;
        drop(streams);
        server.naps.until(0).await;
        server.until_open(0).await;
        assert_eq!((server.naps.done(), server.connections.requests_in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn a_kernel_that_panics_is_an_error_of_its_own_request_alone() {
    for server in Server::all(&Setup::default()) {
        let other = server.send("POST", RUN_NAP, &[JSON], br#"{"millis": 300}"#).await;
        server.naps.until(1).await;
        let mut stream = BufReader::new(server.say("").await);
        for _ in 0..10 {
            stream.write_all(post("/kernels/test/panics/execute", "true").as_bytes()).await.unwrap();
            let response = HttpResponse::next(&mut stream).await.unwrap().expect("the connection is kept");
            assert!(!response.problem(500, "internal").contains("told to"), "what a panic says is for the log");
        }
        assert_eq!(HttpResponse::receive(other).await.status, 200);
        server.assert_serves().await;
    }
}

#[tokio::test]
async fn where_the_backend_is_full_requests_wait_for_as_long_as_their_deadline_allows() {
    for server in Server::all(&Setup { workers: 1, queue: 1, timeout: LONG, ..Setup::default() }) {
        let nap = post(RUN_NAP, r#"{"millis": 600000}"#);
        let runs = server.say(&nap).await;
        server.naps.until(1).await;
        let queued = server.say(&nap).await;
        while server.connections.requests_in_flight() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let impatient = [JSON, ("connect-timeout-ms", "100")];
        let response = server.request("POST", RUN_NAP, &impatient, br#"{"millis": 1}"#).await;
        assert!(response.problem(504, "deadline_exceeded").contains("deadline"), "{response:?}");
        let patient = server.send("POST", RUN_NAP, &[JSON], br#"{"millis": 1}"#).await;
        drop((runs, queued));
        assert_eq!(HttpResponse::receive(patient).await.status, 200);
        assert_eq!(server.naps.done(), 1);
    }
}

/// A layer of the user's own may; what the crate runs does not come that far.
#[tokio::test]
async fn a_service_that_panics_takes_its_connection_with_it_and_nothing_else() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let wire = Wire { address: listener.local_addr().unwrap() };
    let service =
        ::hyper::service::service_fn(|request: http::Request<tower_kernels::hyper::RequestBody>| async move {
            assert_eq!(request.uri().path(), "/", "told to");
            Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
        });
    let server = hyper::Server::default();
    let connections = server.connections();
    tokio::spawn(server.serve(listener, service, std::future::pending(), LONG));
    let mut stays = BufReader::new(wire.say("").await);
    for _ in 0..3 {
        let mut text = String::new();
        let gone = wire.say("GET /panic HTTP/1.1\r\nhost: test\r\n\r\n").await.read_to_string(&mut text).await;
        assert!(text.is_empty(), "{gone:?}: {text}");
        stays.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert_eq!(HttpResponse::next(&mut stays).await.unwrap().unwrap().status, 200);
    }
    assert_eq!((connections.open(), connections.requests_in_flight()), (1, 0));
}
