//! The drain as clients see it, and clients that must not delay it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tower_kernels::grpc::proto::execute_stream_request::Call;
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, KernelClient};

use crate::config::File;
use crate::support::process::{PATIENCE, SAXPY, Server};

const DRAINING: &str = "draining: not ready from now on";
const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame of SETTINGS that sets nothing.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HPACK_GET: u8 = 0x82;
const HPACK_POST: u8 = 0x83;
const HPACK_HTTP: u8 = 0x86;

fn connect(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Reads head and body of a response; an error if the connection ends before its last byte.
fn response(stream: &mut BufReader<TcpStream>) -> io::Result<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}

fn request(version: &str, headers: &str) -> String {
    let length = SAXPY.len();
    format!(
        "POST {EXECUTE} HTTP/{version}\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{SAXPY}"
    )
}

/// Sends a request. Returns whether the response is the last one of its connection.
fn ask(stream: &mut BufReader<TcpStream>) -> io::Result<bool> {
    stream.get_mut().write_all(request("1.1", "").as_bytes())?;
    let (head, body) = response(stream)?;
    assert!(head.starts_with("http/1.1 200"), "{head}{body}");
    Ok(head.contains("\r\nconnection: close\r\n"))
}

#[test]
fn keep_alive_clients_get_connection_close_and_lose_no_request() {
    const CLIENTS: usize = 24;
    let mut server = Server::start(&["--drain-notice=3s", "--drain-limit=120s"]);
    let (completed, told_again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = connect(server.rest).unwrap();
                while !ask(&mut stream).expect("no request is lost on a connection that was not notified") {
                    completed.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
                // On a busy machine the notice may have ended.
                if let Ok(mut stream) = connect(server.rest)
                    && let Ok(told) = ask(&mut stream)
                {
                    assert!(told, "a new connection is notified too");
                    told_again.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(stream.read(&mut [0]).expect("it is closed, and not reset"), 0);
                }
            });
        }
        let begun = Instant::now();
        while completed.load(Ordering::Relaxed) < 10 * CLIENTS {
            assert!(begun.elapsed() < PATIENCE, "no request completes");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.signal("TERM");
    });
    assert!(told_again.load(Ordering::Relaxed) > 0);
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_connection_that_was_not_notified_stays_open_through_the_notice() {
    let mut server = Server::start(&["--drain-notice=3s", "--drain-limit=120s"]);
    let (mut idle, mut asks) = (connect(server.rest).unwrap(), connect(server.rest).unwrap());
    assert!(!ask(&mut idle).unwrap() && !ask(&mut asks).unwrap());
    server.signal("TERM");
    server.stderr.until(DRAINING);
    std::thread::sleep(Duration::from_millis(500));
    assert!(ask(&mut asks).expect("it was not notified"), "it is notified by the response");
    let begun = Instant::now();
    assert_eq!(idle.read(&mut [0]).expect("it is closed, and not reset"), 0);
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it is closed at the end of the notice: {:?}",
        begun.elapsed()
    );
    assert_eq!(server.code(), Some(0));
}

/// hyper would add `keep-alive` for clients that request it.
#[test]
fn an_http_1_0_client_gets_one_connection_header() {
    let server = Server::start(&["--drain-notice=1h"]);
    let mut stream = connect(server.rest).unwrap();
    let keep_alive = request("1.0", "connection: keep-alive\r\n");
    stream.get_mut().write_all(keep_alive.as_bytes()).unwrap();
    assert!(response(&mut stream).unwrap().0.contains("keep-alive"));
    server.signal("TERM");
    let begun = Instant::now();
    let told = loop {
        stream.get_mut().write_all(keep_alive.as_bytes()).unwrap();
        let (head, _) = response(&mut stream).unwrap();
        if head.contains("connection: close") {
            break head;
        }
        assert!(begun.elapsed() < PATIENCE, "it is never notified");
    };
    assert!(!told.contains("keep-alive"), "{told}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// The head of an HTTP/2 request, encoded with the static table of HPACK.
fn http2_head(method: u8, path: &str, stream: u32, flags: u8) -> Vec<u8> {
    let mut head = vec![method, HPACK_HTTP];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "test"), (&[0x0f, 0x10], "application/json")] {
        head.extend_from_slice(name);
        head.push(value.len() as u8);
        head.extend_from_slice(value.as_bytes());
    }
    frame(1, flags, stream, &head)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An HTTP/2 client on raw frames. With hyper's, a lost request and one that was not sent look alike.
struct Http2 {
    to_send: Mutex<(TcpStream, bool)>,
    completed: AtomicUsize,
}

impl Http2 {
    fn connect(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let window = frame(8, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
        stream.write_all(&[PREFACE, SETTINGS, &window].concat()).unwrap();
        Self { to_send: Mutex::new((stream, false)), completed: AtomicUsize::new(0) }
    }

    /// Sends requests until GOAWAY. Returns their number once the connection has ended.
    fn ask(&self) -> usize {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let reads = scope.spawn(|| self.read());
            let mut sent = 0;
            loop {
                // Fewer than the maximum number of concurrent streams.
                if sent - self.completed.load(Ordering::Relaxed) < 20 {
                    let mut to_send = self.to_send.lock().unwrap();
                    if to_send.1 {
                        break;
                    }
                    let head = http2_head(HPACK_GET, "/health/live", 2 * sent as u32 + 1, END_HEADERS | END_STREAM);
                    to_send.0.write_all(&head).unwrap();
                    sent += 1;
                }
                assert!(begun.elapsed() < PATIENCE && !reads.is_finished(), "it is never notified");
                std::thread::sleep(Duration::from_millis(1));
            }
            reads.join().unwrap();
            assert_eq!(self.completed.load(Ordering::Relaxed), sent, "requests are lost");
            sent
        })
    }

    /// Reads to the end of the connection.
    fn read(&self) {
        let mut stream = self.to_send.lock().unwrap().0.try_clone().unwrap();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).is_ok() {
            let [_, a, b, kind, flags, ..] = head.map(u32::from);
            let length = u32::from(head[0]) << 16 | a << 8 | b;
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).unwrap();
            let mut to_send = self.to_send.lock().unwrap();
            match kind {
                1 => assert_eq!(payload[0], 0x88, "200"),
                3 => panic!("a request is reset"),
                4 if flags == 0 => to_send.0.write_all(&frame(4, 1, 0, &[])).unwrap(),
                6 if flags == 0 => to_send.0.write_all(&frame(6, 1, 0, &payload)).unwrap(),
                7 => to_send.1 = true,
                _ => {}
            }
            if matches!(kind, 0 | 1) && flags as u8 & END_STREAM != 0 {
                self.completed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn http2_clients_get_goaway_and_lose_no_request() {
    // They end long before the notice.
    let mut server = Server::start(&["--drain-notice=1h"]);
    let clients: Vec<_> = (0..8).map(|_| Http2::connect(server.rest)).collect();
    // Connections without requests so far are notified with their first one.
    let fresh = Http2::connect(server.rest);
    std::thread::scope(|scope| {
        let asking: Vec<_> = clients.iter().map(|client| scope.spawn(|| client.ask())).collect();
        let begun = Instant::now();
        while clients.iter().any(|client| client.completed.load(Ordering::Relaxed) < 20) {
            assert!(begun.elapsed() < PATIENCE, "no request completes");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.signal("TERM");
        server.stderr.until(DRAINING);
        for client in asking {
            assert!(client.join().unwrap() >= 20);
        }
        assert!(fresh.ask() > 0);
        assert!(Http2::connect(server.rest).ask() > 0);
    });
    server.signal("TERM");
    assert_eq!(server.code(), Some(143));
}

fn saxpy(tag: u64) -> ExecuteStreamRequest {
    let call = ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: SAXPY.to_owned() };
    ExecuteStreamRequest { tag, call: Some(Call::Json(call)), timeout_ms: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_end_with_unavailable_and_do_not_delay_the_drain() {
    let mut server = Server::start(&["--drain-notice=200ms", "--drain-limit=120s"]);
    let requests = futures::stream::iter([saxpy(7)]).chain(futures::stream::pending());
    let mut kernels = KernelClient::new(server.channel().await);
    let mut responses = kernels.execute_stream(requests).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().tag, 7);

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let questions = futures::stream::iter([list]).chain(futures::stream::pending());
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());

    let mut health = HealthClient::new(server.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);

    server.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    for status in [responses.message().await.unwrap_err(), answers.message().await.unwrap_err()] {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server is shutting down"));
    }
    assert_eq!(server.code(), Some(0));
}

/// A graph that takes a while.
fn graph(nodes: u64) -> ExecuteStreamRequest {
    let edges = (0..nodes).flat_map(|node| [[node, (node + 1) % nodes], [node, (node * 7 + 3) % nodes]]);
    let edges: Vec<_> = edges.filter(|[from, to]| from != to).collect();
    let input = serde_json::json!({"num_nodes": nodes, "edges": edges}).to_string();
    let call = ExecuteRequest { kernel_id: "graph/betweenness-centrality".into(), input };
    ExecuteStreamRequest { tag: nodes, call: Some(Call::Json(call)), timeout_ms: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_of_a_stream_complete_before_it_ends() {
    let mut server = Server::start(&["--drain-notice=0s", "--drain-limit=120s", "--load-shed-max-wait=0s"]);
    let requests = futures::stream::iter([saxpy(1), graph(3000)]).chain(futures::stream::pending());
    let mut kernels = KernelClient::new(server.channel().await);
    let mut responses = kernels.execute_stream(requests).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().tag, 1);
    let begun = Instant::now();
    while !server.get("/metrics").1.lines().any(|line| {
        line.starts_with("kernel_requests_total") && line.contains("betweenness")
            || line.starts_with("kernel_requests_in_flight") && line.ends_with(" 1")
    }) {
        assert!(begun.elapsed() < PATIENCE, "it never runs");
    }
    server.signal("TERM");
    assert_eq!(responses.message().await.unwrap().expect("it completes").tag, 3000);
    assert_eq!(responses.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.code(), Some(0));
}

/// Clients that stall at different points and ignore notifications.
fn stuck(to: SocketAddr) -> Vec<TcpStream> {
    let whole = request("1.1", "");
    let http2_body = [http2_head(HPACK_POST, EXECUTE, 1, END_HEADERS), frame(0, 0, 1, b"{\"")].concat();
    let with_expect = request("1.1", "expect: 100-continue\r\n");
    let all: [&[u8]; 10] = [
        b"",
        b"POST /kernels HTTP/1.1\r\nho",
        &whole.as_bytes()[..whole.len() - 10],
        &with_expect.as_bytes()[..with_expect.len() - SAXPY.len()],
        // A part of a second request.
        &[whole.as_bytes(), b"GET /health HT"].concat(),
        whole.as_bytes(),
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, SETTINGS].concat(),
        &[PREFACE, SETTINGS, &http2_body].concat(),
    ];
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    all.into_iter().map(say).collect()
}

#[test]
fn stalled_clients_do_not_delay_the_drain() {
    let mut server = Server::start(&["--drain-notice=200ms", "--drain-limit=120s"]);
    let stuck = [stuck(server.rest), stuck(server.grpc)];
    // A client that sends a byte now and then.
    let half = request("1.1", "").into_bytes();
    let mut trickles = TcpStream::connect(server.rest).unwrap();
    trickles.write_all(&half[..half.len() - 40]).unwrap();
    let trickle = std::thread::spawn(move || {
        for byte in &half[half.len() - 40..half.len() - 1] {
            std::thread::sleep(Duration::from_millis(500));
            if trickles.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    // All are accepted once later connections have been served.
    assert_eq!(server.get("/health/live").0, 200);
    server.signal("TERM");
    // At most 60 s, half of the drain limit.
    assert_eq!(server.code(), Some(0));
    let log = server.stderr.now();
    assert!(log.contains("requests that had not arrived in full were closed"), "{log}");
    assert!(!log.contains("were cancelled after a drain"), "{log}");
    trickle.join().unwrap();
    drop(stuck);
}

#[test]
fn a_stalled_tls_handshake_does_not_delay_the_drain() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (File::new(&certified.cert.pem()), File::new(&certified.signing_key.serialize_pem()));
    let flags = [format!("--tls-cert={}", cert.path()), format!("--tls-key={}", key.path())];
    let mut server = Server::start(&[
        &flags[0],
        &flags[1],
        "--drain-notice=0s",
        "--drain-limit=120s",
        "--connections-head-timeout=10m",
    ]);
    let silent = TcpStream::connect(server.rest).unwrap();
    let mut half = TcpStream::connect(server.grpc).unwrap();
    // The beginning of a handshake record.
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    drop((silent, half));
}
