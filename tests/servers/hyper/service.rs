//! `tower_kernels::hyper` over real sockets: what `tests/server.rs`, which serves with the example, does not ask.

use crate::support::kernels;
use std::io::ErrorKind;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::support::http_client::{HttpResponse, JSON, Wire, head};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::hyper::{KernelHttpService, RequestBody, serve};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer};
use tower_kernels::pipeline::{KernelSource, RegistryOnly};
use tower_kernels::request::{Execution, RequestContext};
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, Payload, TensorSet};

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

fn echo() -> KernelHttpService<Echo> {
    KernelHttpService::with_service(Echo, &RegistryOnly::new(kernels::registry().0))
}

struct Server {
    wire: Wire,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

async fn start<S, B>(service: S, drain: Duration) -> Server
where
    S: hyper::service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = Wire { address: listener.local_addr().unwrap() };
    let (stop, stopped) = oneshot::channel();
    let stopped = async move { stopped.await.map_err(std::io::Error::other) };
    Server { wire, stop, ended: tokio::spawn(serve(listener, service, stopped, drain)) }
}

impl Server {
    /// A POST of JSON, with these headers.
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let headers: Vec<_> = [&[JSON], headers].concat();
        self.wire.request("POST", path, &headers, body.as_bytes()).await
    }
}

#[tokio::test]
async fn a_kernel_is_run_by_its_path_as_well() {
    let server = start(KernelHttpService::new(kernels::registry().0), LONG).await;
    let input = r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#;
    let response = server.post("/kernels/linalg/saxpy/execute", &[("x-request-id", "mine-1")], input).await;
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.header("x-request-id"), Some("mine-1"));
    let document = response.json();
    assert_eq!((&document["request_id"], &document["kernel_id"]), (&json!("mine-1"), &json!("linalg/saxpy")));
    assert_eq!(document["output"], json!({"y": [3.0]}));
}

#[tokio::test]
async fn headers_reach_the_request() {
    let server = start(echo().timeout(LONG), LONG).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let left = |response: &HttpResponse| response.json()["output"]["left"].as_f64().unwrap();
    let headers = [("traceparent", parent), ("grpc-timeout", "20S")];
    let response = server.post("/kernels/test/nap/execute", &headers, "7").await;
    let output = &response.json()["output"];
    assert_eq!((&output["input"], &output["trace"]), (&json!(7), &json!(parent)));
    assert!((10.0..=20.0).contains(&left(&response)), "{output}");
    // Where the client says nothing, the longest that the server allows.
    let response = server.post("/execute", &[], r#"{"kernel_id": "a", "input": 1}"#).await;
    assert!((590.0..=600.0).contains(&left(&response)), "{}", response.body);
}

#[tokio::test]
async fn the_page_of_metrics_is_in_the_format_that_is_asked_for() {
    let metrics = MetricsLayer::new();
    let kernels = KernelHttpService::with_service(metrics.layer(Echo), &RegistryOnly::new(kernels::registry().0))
        .metrics(metrics.handle());
    let server = start(kernels, LONG).await;
    assert_eq!(server.post("/execute", &[], r#"{"kernel_id": "a", "input": 1}"#).await.status, 200);
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (accept, content_type) in [("*/*", "text/plain; version=0.0.4; charset=utf-8"), (open_metrics, open_metrics)] {
        let headers = [("accept", accept), ("x-request-id", "mine-2")];
        let page = server.wire.request("GET", "/metrics", &headers, b"").await;
        assert_eq!((page.header("content-type"), page.header("x-request-id")), (Some(content_type), Some("mine-2")));
        let counted = r#"kernel_requests_total{operation="a",backend="CPU",outcome="ok"} 1"#;
        assert!(page.body.lines().any(|line| line == counted), "{}", page.body);
        let head = server.wire.request("HEAD", "/metrics", &headers, b"").await;
        assert_eq!((head.status, head.header("content-type"), &*head.body), (200, Some(content_type), ""));
        assert_eq!(head.header("content-length"), page.header("content-length"));
    }
}

#[tokio::test]
async fn unreadable_requests_are_rejected_with_their_status() {
    let server = start(echo(), LONG).await;
    for (method, path, headers, body, status, code) in [
        ("POST", "/execute", &[JSON, ("grpc-timeout", "soon")][..], "{}", 400, "invalid_argument"),
        ("DELETE", "/kernels", &[], "", 405, "method_not_allowed"),
        ("GET", "/kernels/linalg/saxpy/execute", &[], "", 405, "method_not_allowed"),
        ("GET", "/elsewhere", &[], "", 404, "not_found"),
        // Nobody gave it metrics.
        ("GET", "/metrics", &[], "", 404, "not_found"),
    ] {
        let response = server.wire.request(method, path, headers, body.as_bytes()).await;
        response.problem(status, code);
        let allowed = response.header("allow").is_some_and(|allow| ["POST", "GET, HEAD"].contains(&allow));
        assert_eq!(allowed, status == 405, "{response:?}");
    }
}

/// A server of hyper's own, which knows nothing of unread bodies.
#[tokio::test]
async fn behind_any_server_a_small_body_is_read_and_a_long_one_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = Wire { address: listener.local_addr().unwrap() };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), echo());
            tokio::spawn(connection);
        }
    });
    for (method, path, headers, status) in [
        ("POST", "/elsewhere", &[JSON][..], 404),
        ("DELETE", "/kernels", &[JSON], 405),
        ("POST", "/execute", &[("content-type", "text/plain")], 415),
        ("POST", "/execute", &[JSON, ("grpc-timeout", "soon")], 400),
        ("GET", "/kernels", &[JSON], 200),
    ] {
        for (length, closes) in [(5, None), (100_000, Some("close"))] {
            let mut stream = BufReader::new(wire.say(head(method, path, headers, Some(length), true)).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(b"12345").await.unwrap();
            let response = HttpResponse::next(&mut stream).await.unwrap().unwrap();
            assert_eq!((response.status, response.header("connection")), (status, closes), "{method} {path} {length}");
            if closes.is_none() {
                stream.write_all(head("GET", "/kernels", &[], None, true).as_bytes()).await.unwrap();
                assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn a_head_has_no_body() {
    let server = start(echo(), LONG).await;
    let response = server.wire.request("HEAD", "/kernels", &[], b"").await;
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_rejection_of_the_pipeline_has_retry_after() {
    let pipeline = RateLimiterLayer::new(1, LONG).layer(Echo);
    let server =
        start(KernelHttpService::with_service(pipeline, &RegistryOnly::new(kernels::registry().0)), LONG).await;
    assert_eq!(server.post("/kernels/test/nap/execute", &[], "1").await.status, 200);
    let rejected = server.post("/kernels/test/nap/execute", &[], "1").await;
    assert_eq!(rejected.status, 429);
    assert_eq!(rejected.header("retry-after"), Some("600"));
}

#[tokio::test]
async fn a_pipeline_in_towers_boxes_is_served() {
    let pipeline = ServiceBuilder::new().buffer(16).load_shed().layer(RateLimiterLayer::new(1, LONG)).service(Echo);
    let server =
        start(KernelHttpService::with_service(pipeline, &RegistryOnly::new(kernels::registry().0)), LONG).await;
    assert_eq!(server.post("/kernels/test/nap/execute", &[], "1").await.status, 200);
    let rejected = server.post("/kernels/test/nap/execute", &[], "1").await;
    assert_eq!((rejected.status, rejected.header("retry-after")), (429, Some("600")));
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
        let request =
            Request::post("http://test/kernels/test/nap/execute").header(header::CONTENT_TYPE, "application/json");
        request.body(Full::<Bytes>::from(body)).unwrap()
    };
    let never = client.send_request(post("null"));
    let response: Response<Incoming> = client.send_request(post("5")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["output"]["input"], json!(5));
    drop(never);
}

/// The table of routes in the documentation, which a unit test holds equal to the one that the servers use.
const ROUTES: &str = include_str!("../../../src/servers/http/routes/routes.md");

/// Method and path of each documented route.
fn documented_routes() -> Vec<(&'static str, String)> {
    let rows = ROUTES.lines().skip(2).map(|row| {
        let mut columns = row.split('|').skip(1).map(str::trim);
        let (method, path) = (columns.next().unwrap(), columns.next().unwrap());
        (method, path.trim_matches('`').replace("{prefix}", ""))
    });
    rows.collect()
}

/// Status line, headers in alphabetical order but for the date, and body of a response, as they were sent.
async fn sent(wire: &Wire, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut bytes = Vec::new();
    let input = br#"{"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0], "y": [1.0]}}"#;
    wire.send(method, path, headers, input).await.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let mut headers: Vec<_> = headers.lines().filter(|header| !header.starts_with("date: ")).collect();
    headers.sort_unstable();
    format!("{status}\n{}\n\n{}", headers.join("\n"), bytes[end + 4..].escape_ascii())
}

#[tokio::test]
async fn axum_and_hyper_respond_alike_to_every_route_and_every_mistake() {
    let fixed = tower::service_fn(async |_: KernelRequest| {
        Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), Execution::new("CPU")))
    });
    let kernels = RegistryOnly::new(kernels::registry().0);
    // Of no service, as durations would differ.
    let metrics = MetricsLayer::new().handle();
    let config = RouterConfig { max_request_size: 1 << 20, ..RouterConfig::default() };
    let router = || KernelRouter::with_service(fixed, &kernels, config.clone()).metrics(metrics.clone());
    let axum = crate::axum::server::Server::serve(router().into_router()).await;
    let plain = start(TowerToHyperService::new(router().into_service(None::<Identity>)), LONG).await;
    let layered = start(TowerToHyperService::new(router().into_service(Some(Identity::new()))), LONG).await;
    let service = KernelHttpService::with_service(fixed, &kernels).max_request_size(1 << 20).metrics(metrics.clone());
    let hyper = start(service, LONG).await;

    let routes = documented_routes();
    assert!(routes.len() > 10, "{routes:?}");
    let mut paths: Vec<_> =
        ["/nowhere", "/nowhere/", "//", "/kernels/", "/kernels/execute", "/docs/a/b", "/kernels/%FF"]
            .map(str::to_owned)
            .to_vec();
    paths.extend(["limit=2", "limit=0", "limit=x", "mode=loop", "domian=a"].map(|query| format!("/kernels?{query}")));
    for (_, path) in &routes {
        for id in ["linalg/saxpy", "linalg%2Fsaxpy", "rest/nap", "no/such", "%FF"] {
            for file in ["index.html", "swagger-ui.css", "none.js", "none"] {
                // No operand of these is there, so that a request which one server gets leaves nothing for the other.
                paths.push(path.replace("{id}", id).replace("{name}", id).replace("{file}", file));
            }
        }
    }
    paths.sort_unstable();
    paths.dedup();
    let id = ("x-request-id", "mine-3");
    for path in &paths {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            for headers in [&[id, JSON][..], &[id, ("accept-encoding", "gzip")], &[id, JSON, ("grpc-timeout", "soon")]]
            {
                let expected = sent(&axum, method, path, headers).await;
                for (name, server) in [("hyper", &hyper), ("plain", &plain), ("layered", &layered)] {
                    assert_eq!(sent(&server.wire, method, path, headers).await, expected, "{name}: {method} {path}");
                }
            }
        }
    }
    for path in routes.iter().map(|(_, path)| path) {
        // One of them is removed by each path with a DELETE.
        kernels.registry().operands().put("stored", TensorSet::of("x", vec![1.0_f32])).unwrap();
        let methods: Vec<_> = routes.iter().filter(|(_, this)| this == path).map(|(method, _)| *method).collect();
        let is_inference = path.starts_with("/v2");
        let path = path.replace("{id}", "linalg/saxpy").replace("{version}", "1").replace("{path}", "status");
        let path = path.replace("{name}", if is_inference { "linalg.saxpy" } else { "stored" });
        let path = path.replace("{file}", "index.html");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let response = sent(&hyper.wire, method, &path, &[id, JSON]).await;
            let status: u16 = response["HTTP/1.1 ".len()..][..3].parse().unwrap();
            match methods.contains(&method) {
                // An upload without the type of the operand is found, and is a bad request.
                true if method == "PUT" => assert_eq!(status, 400, "{method} {path}: {response}"),
                // Found, and rejected: the body is no request of that protocol, or shared memory is asked for.
                true if is_inference && (method == "POST" || path.contains("sharedmemory")) => {
                    assert!([400, 422].contains(&status), "{method} {path}: {response}");
                }
                true => assert!(status < 400, "{method} {path}: {response}"),
                // Below `/` there is nothing but the redirect.
                false => assert_eq!(status, if path == "/" { 404 } else { 405 }, "{method} {path}: {response}"),
            }
        }
    }
}
