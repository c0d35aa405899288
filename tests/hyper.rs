//! `tower_kernels::hyper` over real sockets: what `tests/server.rs`, which serves with the example, does not ask.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service};
use tower_kernels::hyper::{KernelHttpService, serve};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer};
use tower_kernels::service::{
    Execution, KernelError, KernelRegistry, KernelRequest, KernelResponse, Payload, RequestContext,
};

const SOON: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(600);

/// Answers with the request's own input; never, where that is `null`.
#[derive(Clone, Debug)]
struct Echo;

impl Service<KernelRequest> for Echo {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<KernelResponse, KernelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        Box::pin(async move {
            let Payload::Json(input) = &request.payload else { panic!("no JSON") };
            if input == "null" {
                return std::future::pending().await;
            }
            let trace = request.trace_context().map(ToString::to_string);
            let left = request.deadline.map(|by| by.saturating_duration_since(Instant::now()).as_secs_f64());
            let output =
                json!({"input": serde_json::from_slice::<Value>(input).unwrap(), "trace": trace, "left": left});
            Ok(KernelResponse::new(Payload::json(output.to_string()), Execution::new("CPU")))
        })
    }
}

fn registry() -> Arc<KernelRegistry> {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry
}

fn echo() -> KernelHttpService<Echo> {
    KernelHttpService::with_service(Echo, registry())
}

struct Server {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

async fn start<S>(kernels: KernelHttpService<S>, drain: Duration) -> Server
where
    S: Service<KernelRequest, Response = KernelResponse, Future: Send> + Clone + Send + Sync + 'static,
    S::Error: tower_kernels::error::Classify + std::error::Error + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async move { stopped.await.map_err(std::io::Error::other) };
    Server { address, stop, ended: tokio::spawn(serve(listener, kernels, stopped, drain)) }
}

impl Server {
    async fn write(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}\r\nhost: test\r\nconnection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    async fn send(&self, head: &str, body: &str) -> Answer {
        read(self.write(head, body).await).await
    }

    /// A POST of JSON, with these headers.
    async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {length}{headers}");
        self.send(&head, body).await
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn read(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response in {text:?}"));
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

#[tokio::test]
async fn a_kernel_is_run_by_its_path_as_well() {
    let server = start(KernelHttpService::new(registry()), LONG).await;
    let input = r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#;
    let answer = server.post("/kernels/linalg/saxpy/execute", "\r\nx-request-id: mine-1", input).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("x-request-id: mine-1"), "{}", answer.head);
    let document = answer.json();
    assert_eq!((&document["request_id"], &document["kernel_id"]), (&json!("mine-1"), &json!("linalg/saxpy")));
    assert_eq!(document["output"], json!({"y": [3.0]}));
}

#[tokio::test]
async fn headers_reach_the_request() {
    let server = start(echo().timeout(LONG), LONG).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let left = |answer: &Answer| answer.json()["output"]["left"].as_f64().unwrap();
    let answer =
        server.post("/kernels/a/b/execute", &format!("\r\ntraceparent: {parent}\r\ngrpc-timeout: 20S"), "7").await;
    let output = &answer.json()["output"];
    assert_eq!((&output["input"], &output["trace"]), (&json!(7), &json!(parent)));
    assert!((10.0..=20.0).contains(&left(&answer)), "{output}");
    // Where the client says nothing, the longest that the server allows.
    let answer = server.post("/execute", "", r#"{"kernel_id": "a", "input": 1}"#).await;
    assert!((590.0..=600.0).contains(&left(&answer)), "{}", answer.body);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_status() {
    let server = start(echo().max_request_size(64), LONG).await;
    let long = format!(r#"{{"kernel_id": "a", "input": "{}"}}"#, "x".repeat(64));
    for (answer, status, code) in [
        (server.post("/execute", "", &long).await, 413, "too_large"),
        (server.post("/execute", "", "{").await, 400, "invalid_argument"),
        (server.post("/execute", "\r\ncontent-encoding: gzip", "{}").await, 415, "unsupported_media_type"),
        (server.post("/execute", "\r\ngrpc-timeout: soon", "{}").await, 400, "invalid_argument"),
        (server.send("POST /execute HTTP/1.1\r\ncontent-length: 2", "{}").await, 415, "unsupported_media_type"),
        (server.send("DELETE /kernels HTTP/1.1", "").await, 405, "method_not_allowed"),
        (server.send("GET /kernels/linalg/saxpy/execute HTTP/1.1", "").await, 405, "method_not_allowed"),
        (server.send("GET /elsewhere HTTP/1.1", "").await, 404, "not_found"),
        // Nobody gave it metrics.
        (server.send("GET /metrics HTTP/1.1", "").await, 404, "not_found"),
    ] {
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{problem}");
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        assert!(problem["request_id"].as_str().unwrap().starts_with("req-"));
        let allows = answer.head.contains("allow: post") || answer.head.contains("allow: get, head");
        assert_eq!(allows, status == 405, "{}", answer.head);
    }
}

#[tokio::test]
async fn a_head_has_no_body() {
    let server = start(echo(), LONG).await;
    let answer = server.send("HEAD /kernels HTTP/1.1", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    let server = start(echo().timeout(SOON), LONG).await;
    let head = "POST /execute HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 100";
    let answer = server.send(head, "{").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("request_timeout")));
}

#[tokio::test]
async fn the_wait_for_a_free_place_is_bounded_too() {
    let full = ConcurrencyLimit::new(Echo, 0);
    let server = start(KernelHttpService::with_service(full, registry()).timeout(SOON), LONG).await;
    let answer = server.post("/kernels/a/execute", "", "1").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
}

#[tokio::test]
async fn a_refusal_of_the_pipeline_says_when_to_come_back() {
    let pipeline = RateLimiterLayer::new(1, LONG).layer(Echo);
    let server = start(KernelHttpService::with_service(pipeline, registry()), LONG).await;
    assert_eq!(server.post("/kernels/a/execute", "", "1").await.status, 200);
    let refused = server.post("/kernels/a/execute", "", "1").await;
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: 600"), "{}", refused.head);
}

#[tokio::test]
async fn requests_that_outlast_the_drain_are_cancelled() {
    let metrics = MetricsLayer::new();
    let kernels = KernelHttpService::with_service(metrics.layer(Echo), registry()).timeout(LONG);
    let server = start(kernels, SOON).await;
    let head = "POST /kernels/a/execute HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 4";
    let mut stream = server.write(head, "null").await;
    while metrics.handle().in_flight() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.stop.send(()).unwrap();
    let error = server.ended.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest).await;
    assert_eq!((rest.as_str(), metrics.handle().in_flight()), ("", 0));
}

#[tokio::test]
async fn a_stop_that_fails_ends_the_server_with_its_error() {
    let server = start(echo(), LONG).await;
    drop(server.stop);
    assert_eq!(server.ended.await.unwrap().unwrap_err().kind(), ErrorKind::Other);
}

/// It is a service of hyper's like any other, so it fits connections that [`serve`] knows nothing of.
#[tokio::test]
async fn it_serves_http2_by_a_connection_of_hyper_utils() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), echo()).await.unwrap();
    });
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let post = |body: &'static str| {
        let request = Request::post("http://test/kernels/a/execute").header(header::CONTENT_TYPE, "application/json");
        request.body(Full::<Bytes>::from(body)).unwrap()
    };
    let never = client.send_request(post("null"));
    let response: Response<Incoming> = client.send_request(post("5")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["output"]["input"], json!(5));
    drop(never);
}
