//! Connections that are opened and kept: limits per address, idle ones, and what is kept free for health probes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::size;
use crate::streams::{metric_of, until_metric};
use crate::support::process::{PATIENCE, SAXPY, Server, program};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";

/// A connection from another address of this machine than that of all other tests.
async fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// An HTTP/2 connection that answers pings, and its end.
async fn http2(stream: TcpStream) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (client, tokio::spawn(connection))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_http2_connections_are_closed_even_if_they_respond_to_pings() {
    let connections = size(20, 1000);
    let server = Server::start(&["--connections-idle-timeout=1s"]);
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(http2(TcpStream::connect(server.grpc).await.unwrap()).await);
    }
    for (_client, ended) in idle {
        tokio::time::timeout(PATIENCE, ended).await.expect("it is closed").unwrap().expect("it is told to go away");
    }
    let closed = metric_of(&server, "kernel_connections_closed_total", r#"listener="grpc",reason="idle""#);
    assert_eq!(closed, f64::from(connections));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_can_have_so_many_connections_and_others_are_served() {
    let server = Server::start(&["--connections-max-per-address=5"]);
    let mut inside = Vec::new();
    for _ in 0..5 {
        inside.push(from_elsewhere(server.rest).await);
    }
    for _ in 0..size(20, 10_000) {
        let mut more = from_elsewhere(server.rest).await;
        let read = tokio::time::timeout(PATIENCE, more.read(&mut [0])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert_eq!(server.post(EXECUTE, SAXPY).0, 200);
    let rejected = metric_of(&server, "kernel_connections_rejected_total", r#"listener="rest",reason="address""#);
    assert_eq!(rejected, f64::from(size(20, 10_000)));
    // Whoever leaves makes room for the next of the address.
    drop(inside);
    until_metric(&server, "kernel_connections", |open| open <= 1.0);
    let (mut client, _) = http2(from_elsewhere(server.rest).await).await;
    let request = http::Request::get("http://test/health/live").body(Empty::new()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_served_at_the_maximum_of_connections() {
    let server = Server::start(&["--connections-max=4", "--connections-head-timeout=10m"]);
    let mut inside = Vec::new();
    for listener in [server.rest, server.grpc] {
        for _ in 0..4 {
            inside.push(from_elsewhere(listener).await);
        }
    }
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    let (status, body) = server.post(EXECUTE, SAXPY);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("overloaded") && body.contains("connection limit"), "{body}");

    let channel = server.channel().await;
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(health.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    let request = ExecuteRequest { kernel_id: "linalg/saxpy".into(), input: SAXPY.into() };
    let error = KernelClient::new(channel).execute(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");

    assert!(metric_of(&server, "kernel_connections_rejected_total", r#"listener="grpc",reason="max""#) >= 1.0);
    // One that asks nothing does not keep its place.
    let mut silent = TcpStream::connect(server.rest).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await.expect("it is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    drop(inside);
    let begun = std::time::Instant::now();
    while server.post(EXECUTE, SAXPY).0 != 200 {
        assert!(begun.elapsed() < PATIENCE, "there is room again, and it is not given");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_their_maximum_age_close_without_losing_requests() {
    let server = Server::start(&["--connections-max-age=1s", "--connections-max-age-grace=10m"]);
    let rest = server.rest;
    let http1 = tokio::task::spawn_blocking(move || {
        let mut stream = BufReader::new(std::net::TcpStream::connect(rest).unwrap());
        stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        for answered in 0.. {
            let head = format!("POST {EXECUTE} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n");
            write!(stream.get_mut(), "{head}content-length: {}\r\n\r\n{SAXPY}", SAXPY.len()).unwrap();
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let before = head.len();
                assert!(stream.read_line(&mut head).unwrap() > 0, "closed after {answered} responses: {head}");
                if let Some(value) = head[before..].strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            if head.contains("connection: close") {
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                return answered;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        unreachable!("the loop has no end")
    });
    let (mut client, mut ended) = http2(TcpStream::connect(server.rest).await.unwrap()).await;
    let mut answered = 0;
    let begun = std::time::Instant::now();
    while !ended.is_finished() && begun.elapsed() < PATIENCE {
        let request = http::Request::get("http://test/health/live").body(Empty::new()).unwrap();
        match client.send_request(request).await {
            Ok(response) => assert_eq!(response.status(), 200),
            // Told to go away, the client sends none, and the connection ends by itself.
            Err(error) => {
                assert!(error.is_canceled() || error.is_closed(), "{error:?}");
                break;
            }
        }
        answered += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::timeout(PATIENCE, &mut ended).await.expect("it ends").unwrap().unwrap();
    assert!(answered > 0 && http1.await.unwrap() > 0);
    assert!(metric_of(&server, "kernel_connections_closed_total", r#"reason="age""#) >= 2.0);
}

#[test]
#[cfg(target_os = "linux")]
fn the_program_says_at_its_start_where_it_may_not_open_as_many_files_and_raises_what_it_may() {
    let start = |limits: &str, args: &[&str]| {
        let program = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(r#"{limits}; exec "$0" "$@""#)).arg(program.get_program());
        command.args(program.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Server::spawn(&mut command, args)
    };
    let server = start("ulimit -n 700", &["--connections-max=1000"]);
    assert!(server.stderr.until("more open files than the limit allows").contains("connections.max"));
    drop(server);

    let server = start("ulimit -Sn 700", &["--connections-max=1000"]);
    server.get("/health/live");
    assert!(!server.stderr.now().contains("more open files than the limit allows"), "{}", server.stderr.now());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 2 * 1000, "{files}");
}
