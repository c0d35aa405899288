//! Shutdown of `serve`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::support::process::{Call, PATIENCE, SAXPY, Server};

const DRAINING: &str = "draining: not ready from now on";
const EXECUTE: &str = "/kernels/linalg/saxpy/execute";

/// A request without its body yet.
fn unfinished(server: &Server) -> Call {
    let call = Call::begin(server.rest, "POST", EXECUTE, &[], SAXPY.len());
    // It is in flight once a later connection has been served.
    assert_eq!(server.get("/health/live").0, 200);
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_completes_while_new_connections_are_rejected() {
    let mut server = Server::start(&["--drain-notice=3s"]);
    let in_flight = unfinished(&server);
    let mut health = HealthClient::new(server.channel().await);
    server.signal("TERM");
    server.stderr.until(DRAINING);

    // During the notice only readiness changes.
    assert_eq!(server.get("/health/ready").0, 503);
    let response = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(response.status, 2, "not serving");
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);

    // After it new connections are refused, and the request in flight completes.
    let begun = Instant::now();
    while std::net::TcpStream::connect(server.rest).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the listener stays open");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(in_flight.end(SAXPY.as_bytes()).0, 200);
    assert_eq!(server.code(), Some(0));
}

/// Whether the client did not send the call, as its connection got GOAWAY between two calls. Clients other than tonic's
/// resend it on the next connection.
fn was_not_sent(status: &tonic::Status) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(status), |&error| error.source());
    causes.any(|error| {
        // Rejected by the client's side of a closing connection, or before that.
        let goes_away = || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
        error.downcast_ref().is_some_and(|error: &hyper::Error| error.is_canceled() || goes_away())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_is_lost() {
    let mut server = Server::start(&["--drain-notice=2s"]);
    let (completed, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let grpc = async {
        let mut kernels = KernelClient::new(server.channel().await);
        let mut health = HealthClient::new(server.channel().await);
        let mut calls = 0;
        // Like a load balancer: a server that is not ready gets no requests.
        loop {
            match health.check(HealthCheckRequest::default()).await {
                Ok(response) if response.get_ref().status != 1 => break,
                Ok(_) => {}
                Err(status) => assert!(was_not_sent(&status), "{status:?}"),
            }
            let request = ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: SAXPY.to_owned() };
            match kernels.execute(request).await {
                Ok(_) => calls += 1,
                Err(status) => assert!(was_not_sent(&status), "{status:?}"),
            }
        }
        calls
    };
    let (rest, grpc) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while server.get("/health/ready").0 == 200 {
                        assert_eq!(server.post(EXECUTE, SAXPY).0, 200);
                        completed.fetch_add(1, Ordering::Relaxed);
                    }
                    stopped.store(true, Ordering::Relaxed);
                })
            })
            .collect();
        scope.spawn(|| {
            let begun = Instant::now();
            while completed.load(Ordering::Relaxed) < 50 {
                assert!(begun.elapsed() < PATIENCE && !stopped.load(Ordering::Relaxed), "no request completes");
                std::thread::sleep(Duration::from_millis(5));
            }
            server.signal("TERM");
        });
        let calls = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(grpc));
        clients.into_iter().for_each(|client| client.join().unwrap());
        (completed.load(Ordering::Relaxed), calls)
    });
    assert!(rest >= 50 && grpc > 0, "{rest} over REST, {grpc} over gRPC");
    assert_eq!(server.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watchers_are_notified_and_do_not_delay_the_drain() {
    let mut server = Server::start(&["--drain-notice=100ms", "--drain-limit=50s"]);
    let mut client = HealthClient::new(server.channel().await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    assert!(watch.message().await.unwrap().is_none(), "the watch has ended");
    assert_eq!(server.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(45), "it ended at the drain limit");
}

/// A request that takes minutes unless it is cancelled.
fn endless() -> String {
    let nodes = 40_000_u64;
    let edges = (0..nodes).flat_map(|node| [[node, (node + 1) % nodes], [node, (node * 7 + 3) % nodes]]);
    let edges: Vec<_> = edges.filter(|[from, to]| from != to).collect();
    serde_json::json!({"num_nodes": nodes, "edges": edges}).to_string()
}

#[test]
fn a_request_beyond_the_drain_limit_is_cancelled_and_the_exit_code_reports_it() {
    let limits = ["--drain-notice=0s", "--drain-limit=300ms", "--timeout=30m", "--load-shed-max-wait=0s"];
    let mut server = Server::start(&limits);
    let input = endless();
    let mut in_flight =
        Call::begin(server.rest, "POST", "/kernels/graph/betweenness-centrality/execute", &[], input.len());
    in_flight.send(input.as_bytes());
    let begun = Instant::now();
    let runs = |line: &str| line.starts_with("kernel_requests_in_flight") && line.ends_with(" 1");
    while !server.get("/metrics").1.lines().any(runs) {
        assert!(begun.elapsed() < PATIENCE, "it never runs");
    }
    server.signal("INT");
    assert_eq!(server.code(), Some(8));
    server.stderr.until("1 requests on 1 connections were cancelled");
    server.stderr.until("drain limit exceeded");
}

#[test]
fn every_termination_signal_starts_a_drain() {
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        let mut server = Server::start(&["--drain-notice=300ms"]);
        let in_flight = unfinished(&server);
        server.signal(name);
        assert!(server.stderr.until(DRAINING).contains(&format!("SIG{name}")));
        assert_eq!(in_flight.end(SAXPY.as_bytes()).0, 200);
        assert_eq!(server.code(), Some(0), "{name}");
    }
}

/// With SIGHUP ignored, as under `nohup`.
#[cfg(target_os = "linux")]
#[test]
fn an_ignored_sighup_stays_ignored() {
    let built = std::env::var_os("TOWER_KERNELS_HOSTILE_PROGRAM");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    shell.arg(built.unwrap_or_else(|| env!("CARGO_BIN_EXE_tower-kernels").into()));
    shell.args(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]);
    shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut server = Server::spawn(&mut shell, &["--drain-notice=0s"]);
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get("/health/ready").0, 200);
    server.signal("TERM");
    assert!(!server.stderr.until(DRAINING).contains("SIGHUP"));
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_second_signal_exits_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let mut server = Server::start(&["--drain-notice=1h"]);
        server.signal("TERM");
        server.stderr.until(DRAINING);
        server.signal(name);
        assert_eq!(server.code(), Some(code));
    }
}
