//! Clients that hang up while their request runs, whatever else they have sent by then.

use std::io;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::streams::{metric, metric_of};
use crate::support::process::{PATIENCE, Server};
use crate::tls::{Authority, Client, Folder, start};

/// Work for minutes, where nobody cancels it.
fn endless() -> Vec<u8> {
    let nodes = 40_000_u64;
    let edges = (0..nodes).flat_map(|node| [[node, (node + 1) % nodes], [node, (node * 7 + 3) % nodes]]);
    let edges: Vec<_> = edges.filter(|[from, to]| from != to).collect();
    let input = serde_json::json!({"num_nodes": nodes, "edges": edges}).to_string();
    let head = format!(
        "POST /kernels/graph/betweenness-centrality/execute HTTP/1.1\r\nhost: test\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        input.len()
    );
    [head.into_bytes(), input.into_bytes()].concat()
}

/// What else the client sends. The last is more than the server reads ahead.
fn rests() -> [Vec<u8>; 4] {
    let get = b"GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n";
    [Vec::new(), b"\r\n".to_vec(), get.to_vec(), get.repeat(30_000)]
}

#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    /// As a process that is killed with bytes unread does it.
    Reset,
    CloseSending,
}

const FLAGS: [&str; 4] =
    ["--timeout=30m", "--load-shed-max-wait=0s", "--cpu-workers=2", "--connections-head-timeout=30m"];

/// Waits until one request runs.
async fn until_running(server: &Server) {
    let begun = Instant::now();
    while metric(server, "kernel_requests_in_flight") != 1.0 {
        assert!(begun.elapsed() < PATIENCE, "it is never run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until as many requests have been cancelled, and none runs.
async fn until_cancelled(server: &Server, count: f64, case: &str) {
    let begun = Instant::now();
    loop {
        let cancelled = metric_of(server, "kernel_requests_total", r#"outcome="cancelled""#);
        if cancelled == count && metric(server, "kernel_requests_in_flight") == 0.0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{case}: {cancelled} were cancelled of {count}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends what fits into the buffers of both sides.
async fn send_what_fits(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let sent = tokio::time::timeout(Duration::from_millis(500), stream.write_all(bytes)).await;
    assert!(!matches!(sent, Ok(Err(_))), "{sent:?}");
    let flushed = tokio::time::timeout(Duration::from_millis(500), stream.flush()).await;
    assert!(!matches!(flushed, Ok(Err(_))), "{flushed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_cancels_the_work_whatever_was_sent_before_it() {
    let (server, request) = (Server::start(&FLAGS), endless());
    let mut count = 0.0;
    for end in [End::Close, End::Reset, End::CloseSending] {
        for rest in rests() {
            let mut stream = TcpStream::connect(server.rest).await.unwrap();
            stream.write_all(&request).await.unwrap();
            until_running(&server).await;
            send_what_fits(&mut stream, &rest).await;
            let _open = match end {
                End::Close => {
                    drop(stream);
                    None
                }
                End::Reset => {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(stream);
                    None
                }
                End::CloseSending => {
                    stream.shutdown().await.unwrap();
                    Some(stream)
                }
            };
            count += 1.0;
            until_cancelled(&server, count, &format!("{end:?} after {} bytes", rest.len())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_as_well() {
    let (authority, folder) = (Authority::new(), Folder::new("hang-ups"));
    let flags = folder.flags(&authority.server());
    let (server, request) = (start(&flags, &FLAGS), endless());
    let client = Client::new(&authority);
    for (index, rest) in rests().into_iter().enumerate() {
        let mut stream = client.connect(server.rest).await.unwrap();
        stream.write_all(&request).await.unwrap();
        until(&client, &server, "kernel_requests_in_flight", 1.0).await;
        send_what_fits(&mut stream, &rest).await;
        drop(stream);
        until(&client, &server, r#"outcome="cancelled""#, (index + 1) as f64).await;
        until(&client, &server, "kernel_requests_in_flight", 0.0).await;
    }
}

/// Waits until the lines of the metrics page that hold this sum up to so much.
async fn until(client: &Client<'_>, server: &Server, what: &str, value: f64) {
    let begun = Instant::now();
    loop {
        let page = page(client.connect(server.rest).await.unwrap()).await.unwrap();
        let lines = page.lines().filter(|line| line.starts_with("kernel_requests_") && line.contains(what));
        let sum: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        if sum == value {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} is {sum} and not {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn page(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
