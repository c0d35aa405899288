//! Requests whose decoded input or output takes far more memory than what was sent.
//!
//! Each server runs under a limit on its data segment: where it takes more memory than that it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::size;
use crate::support::process::{PATIENCE, SAXPY, Server, program};

const SAXPY_PATH: &str = "/kernels/linalg/saxpy/execute";
const PRICING_PATH: &str = "/kernels/risk/option-pricing/execute";

/// The program under a limit of 1 GiB, and of less in CI.
fn limited(args: &[&str]) -> Server {
    limited_to(size(384, 1024), args)
}

fn limited_to(mib: usize, args: &[&str]) -> Server {
    let serve = program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--cuda-mode=off"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -d {} && exec \"$0\" \"$@\"", mib << 10));
    command.arg(serve.get_program()).args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Server::spawn(&mut command, args)
}

/// What the process has in memory at most, so far.
fn peak_mib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) >> 10
}

/// The server is there, serves a small request at once, and does not have more memory than it may.
fn lives(server: &mut Server, after: &str) {
    assert!(server.child.try_wait().unwrap().is_none(), "the server has ended after {after}");
    let (code, body) = server.post(SAXPY_PATH, SAXPY);
    assert_eq!(code, 200, "after {after}: {body}");
    eprintln!("{after}: {} MiB at most", peak_mib(server));
}

/// The value of a metric.
fn metric(server: &Server, name: &str) -> f64 {
    let (_, page) = server.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

/// Waits until requests hold nothing any more.
fn settles(server: &Server) {
    let begun = Instant::now();
    while metric(server, "kernel_memory_used_bytes") > 0.0 {
        assert!(begun.elapsed() < PATIENCE, "requests hold {} bytes", metric(server, "kernel_memory_used_bytes"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Option pricing of so many contracts in the fewest bytes, 2 for each.
fn pricing(contracts: usize) -> String {
    let spots = vec!["1"; contracts].join(",");
    format!(r#"{{"spot":[{spots}],"strike":1,"rate":0.05,"volatility":0.2,"time":1.5,"kind":"call"}}"#)
}

/// Posts and gives the status and whether the response says when to come back. `None` where the connection broke, as it
/// does where the server does not read the rest of a body.
fn post(to: SocketAddr, path: &str, body: &str) -> Option<(u16, bool)> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    // Where it was rejected before its end, the response says so.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut response = Vec::new();
    let mut part = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        // The head is enough.
        if response.len() < 4096 {
            response.extend_from_slice(&part[..read]);
        }
    }
    let head = String::from_utf8_lossy(&response).into_owned();
    let code = head.get(9..12)?.parse().ok()?;
    Some((code, head.to_ascii_lowercase().contains("\r\nretry-after: ")))
}

#[test]
fn outputs_far_larger_than_their_requests() {
    let mut server = limited(&[]);
    let body = pricing(size(2_000_000, 5_200_000));
    let to = server.rest;
    let responses: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| post(to, PRICING_PATH, &body))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    lives(&mut server, "option pricing of many contracts");
    for (code, says_when) in responses.iter().flatten() {
        assert!(matches!(code, 200 | 413 | 503), "{responses:?}");
        assert!(*code != 503 || *says_when, "{responses:?}");
    }
    // One that fits is served, once the others have gone.
    settles(&server);
    assert_eq!(post(to, PRICING_PATH, &pricing(10_000)).map(|(code, _)| code), Some(200));
    settles(&server);
}

/// Runs as many calls as there are at once, and gives what they come to.
async fn calls<F>(channel: Channel, count: usize, call: impl Fn(Channel) -> F) -> Vec<Result<(), Status>>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for _ in 0..count {
        calls.spawn(call(channel.clone()));
    }
    calls.join_all().await
}

async fn price(channel: Channel, input: String, compress: bool) -> Result<(), Status> {
    let mut client = KernelClient::new(channel).max_decoding_message_size(256 << 20);
    if compress {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let request = ExecuteRequest { kernel_id: "risk/option-pricing".to_owned(), input };
    client.execute(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_far_larger_than_compressed_requests() {
    let input = pricing(size(600_000, 15_000_000));
    for (args, allowed) in [
        (&[][..], [Code::Unimplemented].as_slice()),
        (&["--grpc-compressed-requests"], &[Code::Ok, Code::OutOfRange, Code::ResourceExhausted]),
    ] {
        let mut server = limited(args);
        let channel = server.channel().await;
        let results = calls(channel.clone(), 8, |channel| price(channel, input.clone(), true)).await;
        tokio::task::block_in_place(|| lives(&mut server, "compressed option pricing"));
        for result in results {
            let code = result.as_ref().map_or_else(Status::code, |()| Code::Ok);
            assert!(allowed.contains(&code), "{result:?}");
            if let (Code::Unimplemented, Err(status)) = (code, result) {
                assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
            }
        }
        tokio::task::block_in_place(|| settles(&server));
        price(channel, pricing(1000), !args.is_empty()).await.unwrap();
    }
}

/// A message of which nobody says what it is made of.
#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// An `ExecuteTensorsRequest` whose tensors have no field set: two bytes each.
#[derive(Clone, PartialEq, prost::Message)]
struct EmptyTensors {
    #[prost(string, tag = "1")]
    kernel_id: String,
    #[prost(message, repeated, tag = "2")]
    inputs: Vec<Empty>,
}

async fn execute_empty_tensors(channel: Channel, count: usize, compress: bool) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    if compress {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let request = EmptyTensors { kernel_id: "linalg/saxpy".to_owned(), inputs: vec![Empty {}; count] };
    let path = http::uri::PathAndQuery::from_static("/tower_kernels.v1.Kernel/ExecuteTensors");
    let codec = tonic_prost::ProstCodec::<EmptyTensors, Empty>::default();
    client.unary(tonic::Request::new(request), path, codec).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_empty_tensors() {
    let count = size(3_000_000, 33_000_000);
    for (args, compress) in [(&[][..], false), (&["--grpc-compressed-requests"], true)] {
        let mut server = limited(args);
        let results = calls(server.channel().await, 4, |to| execute_empty_tensors(to, count, compress)).await;
        tokio::task::block_in_place(|| lives(&mut server, "very many empty tensors"));
        assert!(results.iter().all(Result::is_err), "{results:?}");
        tokio::task::block_in_place(|| settles(&server));
    }
}

/// Connections that have sent all of a body but its last byte.
fn stalled(server: &Server, count: usize, length: usize) -> Vec<TcpStream> {
    let to = server.rest;
    let part = vec![b' '; 1 << 20];
    let connect = |_| {
        let mut stream = TcpStream::connect(to).unwrap();
        let head = format!(
            "POST {SAXPY_PATH} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut left = length - 1;
        let mut send = || -> std::io::Result<()> {
            stream.write_all(head.as_bytes())?;
            while left > 0 {
                let part = &part[..left.min(part.len())];
                stream.write_all(part)?;
                left -= part.len();
            }
            Ok(())
        };
        // One that is rejected is not read to its end.
        let _ = send();
        stream
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count).map(|index| scope.spawn(move || connect(index))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn bodies_that_stall_before_their_last_byte() {
    let mut server = limited(&[]);
    let connections = stalled(&server, size(60, 200), 9_900_000);
    lives(&mut server, "stalled bodies");
    // Somebody who needs much gets it while they are still there, and long before their deadline.
    let numbers = vec!["1.5"; 300_000].join(",");
    let large = format!(r#"{{"a":2,"x":[{numbers}],"y":[{numbers}]}}"#);
    let begun = Instant::now();
    while post(server.rest, SAXPY_PATH, &large).is_none_or(|(code, _)| code != 200) {
        assert!(begun.elapsed() < PATIENCE, "those who stall keep others out");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(connections);
    settles(&server);
}

/// gRPC clients that only say how long their messages are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_announced_and_do_not_come() {
    let mut server = limited(&[]);
    let to = server.grpc;
    let mut senders = Vec::new();
    let mut connections = JoinSet::new();
    for _ in 0..size(40, 200) {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        connections.spawn(connection);
        let (sender, body) = tokio::sync::mpsc::channel::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>(1);
        let body = http_body_util::StreamBody::new(futures::stream::unfold(body, |mut body| async {
            body.recv().await.map(|frame| (frame, body))
        }));
        let request = http::Request::post(format!("http://{to}/tower_kernels.v1.Kernel/Execute"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Box::pin(body))
            .unwrap();
        let response = send.send_request(request);
        tokio::spawn(response);
        // Of 60 MiB, one byte.
        let prefix = bytes::Bytes::from_static(&[0, 0x03, 0xc0, 0, 0, b' ']);
        sender.send(Ok(http_body::Frame::data(prefix))).await.unwrap();
        senders.push((sender, send));
    }
    tokio::task::block_in_place(|| {
        std::thread::sleep(Duration::from_millis(200));
        lives(&mut server, "messages that are announced and do not come");
        assert!(metric(&server, "kernel_memory_used_bytes") < 1e6);
    });
}

#[test]
fn bodies_in_chunks_of_one_byte() {
    // It takes millions of chunks, and in CI too long a time, for pieces that are kept apart to use up the limit.
    let mut server = limited(&[]);
    let to = server.rest;
    let length = size(65_536, 9_900_000);
    let chunks = b"1\r\n \r\n".repeat(1 << 14);
    let connect = || {
        let mut stream = TcpStream::connect(to).unwrap();
        let head = format!(
            "POST {SAXPY_PATH} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        // One that is rejected is not read to its end.
        let _ = stream.write_all(head.as_bytes());
        let _ = (0..length >> 14).try_for_each(|_| stream.write_all(&chunks));
        stream
    };
    let connections: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    lives(&mut server, "bodies in chunks of one byte");
    drop(connections);
    settles(&server);
}

#[test]
fn responses_that_are_not_read() {
    let mut server = limited_to(size(160, 1024), &[]);
    let body = pricing(size(40_000, 400_000));
    let head = format!(
        "POST {PRICING_PATH} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let connections: Vec<_> = (0..size(32, 200))
        .map(|_| {
            let mut stream = TcpStream::connect(server.rest).unwrap();
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            stream
        })
        .collect();
    // Each of them is answered before long, in one way or the other: a byte has come and is not taken.
    for stream in &connections {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(stream.peek(&mut [0]).is_ok_and(|read| read == 1));
    }
    lives(&mut server, "responses that are not read");
    drop(connections);
    settles(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_have_a_limit_on_both() {
    let mut server = limited(&["--rest-max-response-size=100000", "--grpc-max-response-size=100000"]);
    let channel = server.channel().await;
    // Some are refused before they run, by what their arrays take, and some while they are encoded.
    for contracts in [2_500, 100_000] {
        let input = pricing(contracts);
        let (code, body) = tokio::task::block_in_place(|| server.post(PRICING_PATH, &input));
        assert_eq!(code, 413, "{body}");
        assert!(body.contains("too_large") && body.contains("100000 bytes"), "{body}");
        let status = price(channel.clone(), input, false).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert!(status.message().contains("100000 bytes"), "{status:?}");
    }
    price(channel, pricing(500), false).await.unwrap();
    tokio::task::block_in_place(|| {
        assert_eq!(server.post(PRICING_PATH, &pricing(500)).0, 200);
        lives(&mut server, "responses over the limit");
        settles(&server);
    });
}

#[test]
fn requests_over_the_memory_limit_are_rejected_and_counted() {
    let server = limited(&["--memory-max=8MiB"]);
    assert_eq!(metric(&server, "kernel_memory_max_bytes"), f64::from(8 << 20));
    // Half of it is the most that one request may have.
    let (code, body) = server.post(PRICING_PATH, &pricing(200_000));
    assert_eq!(code, 413, "{body}");
    assert!(body.contains("4194304"), "{body}");
    let connections = stalled(&server, 3, 2_400_000);
    let begun = Instant::now();
    // Small requests are served all the while.
    while metric(&server, "kernel_memory_rejections_total") == 0.0 {
        assert_eq!(server.post(SAXPY_PATH, SAXPY).0, 200);
        let large = format!(r#"{{"a":2,"x":[{0}],"y":[{0}]}}"#, vec!["1.5"; 100_000].join(","));
        if let Some((503, says_when)) = post(server.rest, SAXPY_PATH, &large) {
            assert!(says_when);
            let (_, health) = server.get("/health");
            assert!(health.contains(r#""memory":{"status":"degraded""#), "{health}");
            assert_eq!(server.get("/health/ready").0, 200);
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(metric(&server, "kernel_memory_peak_bytes") <= f64::from(8 << 20));
    drop(connections);
    settles(&server);
}
