//! Streams of requests whose client does not read.

use std::time::{Duration, Instant};

use futures::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tower_kernels::grpc::proto::execute_stream_request::Call;
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, KernelClient};

use crate::size;
use crate::support::process::{PATIENCE, SAXPY, Server};

/// A connection that gives each response a window of 1 000 bytes, and more only as it is read.
async fn tight_channel(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    endpoint.initial_stream_window_size(1000).connect().await.unwrap()
}

/// A request whose work grows with the square of `nodes`, and whose response has some 20 bytes for each.
fn graph(tag: u64, nodes: u64) -> ExecuteStreamRequest {
    let edges = (0..nodes).flat_map(|node| [[node, (node + 1) % nodes], [node, (node * 7 + 3) % nodes]]);
    let edges: Vec<_> = edges.filter(|[from, to]| from != to).collect();
    let input = serde_json::json!({"num_nodes": nodes, "edges": edges}).to_string();
    let call = ExecuteRequest { kernel_id: "graph/betweenness-centrality".into(), input };
    ExecuteStreamRequest { tag, call: Some(Call::Json(call)), timeout_ms: 0 }
}

/// A gauge or counter of the metrics page, summed over its labels; 0 where it has no line.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    metric_of(server, name, "")
}

/// The same of the lines with this label.
pub(crate) fn metric_of(server: &Server, name: &str, label: &str) -> f64 {
    let (status, page) = server.get("/metrics");
    assert_eq!(status, 200, "{page}");
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values =
        page.lines().filter(of_name).filter(|line| line.contains(label)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// Waits until the figure is as it is to be.
#[track_caller]
pub(crate) fn until_metric(server: &Server, name: &str, what: impl Fn(f64) -> bool) -> f64 {
    let begun = Instant::now();
    loop {
        let value = metric(server, name);
        if what(value) {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is {value} for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_a_client_that_does_not_read_end_and_others_are_served() {
    const REQUESTS: u64 = 40;
    let server = Server::start(&["--cpu-workers=2", "--connections-write-timeout=10m"]);
    let mut client = KernelClient::new(tight_channel(&server).await);
    let requests =
        futures::stream::iter((0..REQUESTS).map(|tag| graph(tag, size(150, 1000)))).chain(futures::stream::pending());
    let responses = client.execute_stream(requests).await.unwrap().into_inner();

    // All of them have run, and none is in flight, though not one response has been read.
    until_metric(&server, "kernel_requests_total", |ended| ended >= REQUESTS as f64);
    until_metric(&server, "kernel_requests_in_flight", |in_flight| in_flight == 0.0);
    assert_eq!(metric(&server, "kernel_load_shed_in_flight"), 0.0);
    for _ in 0..10 {
        let (status, body) = server.post("/kernels/linalg/saxpy/execute", SAXPY);
        assert_eq!(status, 200, "{body}");
    }
    drop(responses);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_is_read_no_further_and_goes_on_when_its_client_reads() {
    const REQUESTS: u64 = 40;
    let server = Server::start(&["--grpc-max-concurrent-per-stream=8", "--connections-write-timeout=10m"]);
    let mut client = KernelClient::new(tight_channel(&server).await);
    let requests = futures::stream::iter((0..REQUESTS).map(|tag| graph(tag, size(150, 1000))));
    let mut responses = client.execute_stream(requests).await.unwrap().into_inner();
    // Those that are unread, and those that the response body has taken out: one that waits to be sent, and one that is.
    until_metric(&server, "kernel_requests_total", |ended| ended >= 8.0);
    until_metric(&server, "kernel_requests_in_flight", |in_flight| in_flight == 0.0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = metric(&server, "kernel_requests_total");
    assert!(ended <= 8.0 + 4.0, "{ended} requests have run, of which none was read");

    let mut tags = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        tags.push(response.tag);
    }
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..REQUESTS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resetting_a_stream_that_is_not_read_cancels_its_work() {
    let server = Server::start(&["--cpu-workers=1", "--connections-write-timeout=10m", "--load-shed-max-wait=0s"]);
    let mut client = KernelClient::new(tight_channel(&server).await);
    // Long enough in a release build too that none has ended before the last is read.
    let requests = futures::stream::iter((0..30).map(|tag| graph(tag, 10_000)));
    let responses = client.execute_stream(requests).await.unwrap().into_inner();
    until_metric(&server, "kernel_requests_in_flight", |in_flight| in_flight == 30.0);
    drop(responses);
    until_metric(&server, "kernel_requests_in_flight", |in_flight| in_flight == 0.0);
    let cancelled = metric_of(&server, "kernel_requests_total", r#"outcome="cancelled""#);
    assert!(cancelled >= 1.0, "{cancelled} were cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_ends_by_the_write_timeout() {
    let server = Server::start(&["--connections-write-timeout=1s"]);
    let mut client = KernelClient::new(tight_channel(&server).await);
    let requests = futures::stream::iter((0..20).map(|tag| graph(tag, 150))).chain(futures::stream::pending());
    let mut responses = client.execute_stream(requests).await.unwrap().into_inner();
    until_metric(&server, "kernel_streams_reset_total", |reset| reset >= 1.0);
    let mut read = 0;
    let status = loop {
        match responses.message().await {
            Ok(Some(_)) => read += 1,
            Ok(None) => panic!("all {read} responses were sent"),
            Err(status) => break status,
        }
    };
    assert!(read < 20 && status.code() == tonic::Code::Cancelled, "{read} responses, then {status}");
}
