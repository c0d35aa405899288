//! Every layer of this crate directly on servers that know nothing of kernels, over real sockets: an `axum` router, and
//! a `tonic` server with a health service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{Route, get};
use futures::stream::Empty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_kernels::layers::{ErrorResponseLayer, MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::middleware::error_response::any_body;

use crate::support::logs::{Log, capture};

const HOUR: Duration = Duration::from_secs(3600);

/// A route that answers at once, and one that does not.
async fn over_axum<L>(layer: L) -> SocketAddr
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<axum::extract::Request, Response = axum::response::Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let app: Router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/slow", get(async || tokio::time::sleep(HOUR).await))
        .layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// The head and the body of the answer, in small letters.
async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response.to_lowercase()
}

fn assert_says(response: &str, all: &[&str]) {
    for part in all {
        assert!(response.contains(part), "no {part:?} in {response}");
    }
}

/// Takes an hour for the service `slow`.
struct Checks;

#[tonic::async_trait]
impl Health for Checks {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if request.get_ref().service == "slow" {
            tokio::time::sleep(HOUR).await;
        }
        Ok(tonic::Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nothing to watch"))
    }
}

type Client = HealthClient<tonic::transport::Channel>;

async fn over_tonic<L, B>(layer: L) -> Client
where
    L: Layer<Routes> + Clone + Send + Sync + 'static,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    L::Service: Service<http::Request<tonic::body::Body>, Response = http::Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    connect(serve_tonic(layer)).await
}

fn serve_tonic<L, B>(layer: L) -> SocketAddr
where
    L: Layer<Routes> + Clone + Send + Sync + 'static,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
    L::Service: Service<http::Request<tonic::body::Body>, Response = http::Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder().layer(layer).add_service(HealthServer::new(Checks));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    address
}

async fn connect(address: SocketAddr) -> Client {
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn check(client: &mut Client, service: &str) -> Result<(), Status> {
    client.check(HealthCheckRequest { service: service.to_owned() }).await.map(drop)
}

#[tokio::test]
async fn timeout_on_axum() {
    let layers =
        ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(TimeoutLayer::new(Duration::from_millis(50)));
    let address = over_axum(layers).await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 200", "\r\n\r\nhello"]);
    let late = http_get(address, "/slow").await;
    assert_says(&late, &["http/1.1 504", "application/problem+json", r#""code":"deadline_exceeded""#]);
}

#[tokio::test]
async fn rate_limit_on_axum() {
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(RateLimiterLayer::new(1, HOUR));
    let address = over_axum(layers).await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 200"]);
    // One limit for all routes, each of which has a service of its own.
    let rejected = http_get(address, "/slow").await;
    assert_says(
        &rejected,
        &["http/1.1 429", "retry-after: 3600", r#""code":"rate_limited""#, "the rate limit is reached"],
    );
}

#[tokio::test]
async fn metrics_on_axum() {
    let metrics = MetricsLayer::new();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(metrics.clone())
        .layer(RateLimiterLayer::new(1, HOUR));
    let address = over_axum(layers).await;
    http_get(address, "/hello").await;
    http_get(address, "/hello").await;
    assert_says(&metrics.render(), &[r#"outcome="ok"} 1"#, r#"outcome="rate_limited"} 1"#]);
}

#[tokio::test]
async fn tracing_on_axum() {
    let (log, _listening) = listen();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(1, HOUR));
    let address = over_axum(layers).await;
    http_get(address, "/hello").await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 429"]);
    let name = if cfg!(feature = "axum") { r#"otel.name="GET /hello""# } else { r#"otel.name="GET""# };
    assert_says(&log.text(), &["rate_limited", name]);
}

#[tokio::test]
async fn timeout_on_tonic() {
    let layers =
        ServiceBuilder::new().layer(ErrorResponseLayer::grpc()).layer(TimeoutLayer::new(Duration::from_millis(50)));
    let mut client = over_tonic(layers).await;
    check(&mut client, "").await.unwrap();
    let late = check(&mut client, "slow").await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "the deadline passed before the response"));
}

#[tokio::test]
async fn rate_limit_on_tonic() {
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::grpc()).layer(RateLimiterLayer::new(1, HOUR));
    let mut client = over_tonic(layers).await;
    check(&mut client, "").await.unwrap();
    let rejected = check(&mut client, "").await.unwrap_err();
    assert_eq!(rejected.code(), Code::ResourceExhausted);
    assert!(rejected.message().contains("the rate limit is reached"), "{rejected}");
    let pushback: u64 = rejected.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((3_590_000..=3_600_000).contains(&pushback), "{pushback}");
    assert!(rejected.details().windows(20).any(|part| part == b"google.rpc.RetryInfo"), "{:?}", rejected.details());
}

#[tokio::test]
async fn metrics_on_tonic() {
    let metrics = MetricsLayer::new();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::grpc())
        .layer(metrics.clone())
        .layer(RateLimiterLayer::new(1, HOUR));
    let mut client = over_tonic(layers).await;
    check(&mut client, "").await.unwrap();
    check(&mut client, "").await.unwrap_err();
    assert_says(&metrics.render(), &[r#"outcome="ok"} 1"#, r#"outcome="rate_limited"} 1"#]);
}

#[tokio::test]
async fn tracing_on_tonic() {
    let (log, _listening) = listen();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::grpc())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(1, HOUR));
    let mut client = over_tonic(layers).await;
    check(&mut client, "").await.unwrap();
    assert_eq!(check(&mut client, "").await.unwrap_err().code(), Code::ResourceExhausted);
    assert_says(&log.text(), &["rate_limited"]);
}

/// tower's own layers put their errors into boxes, and are answered for what is in them.
#[tokio::test]
async fn towers_layers_on_axum() {
    // axum makes the services of a layer once a connection, and this one limits all of them together.
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let address = over_axum(ServiceBuilder::new().layer(ErrorResponseLayer::new()).load_shed().layer(limit)).await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 200", "\r\n\r\nhello"]);
    // One of the two waits for an hour, and the other finds the service full.
    let rejected = tokio::select! {
        response = http_get(address, "/slow") => response,
        response = http_get(address, "/slow") => response,
    };
    assert_says(&rejected, &["http/1.1 503", "retry-after: 1", r#""code":"overloaded""#, "service overloaded"]);

    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::new()).timeout(Duration::from_millis(50));
    let late = http_get(over_axum(layers).await, "/slow").await;
    assert_says(&late, &["http/1.1 504", r#""code":"deadline_exceeded""#]);

    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .buffer(8)
        .layer(MetricsLayer::new())
        .layer(RateLimiterLayer::new(1, HOUR));
    let address = over_axum(layers).await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 200", "\r\n\r\nhello"]);
    let rejected = http_get(address, "/hello").await;
    assert_says(&rejected, &["http/1.1 429", "retry-after: 3600", r#""code":"rate_limited""#]);
}

#[tokio::test]
async fn towers_layers_on_tonic() {
    // By the content type, and as gRPC alone.
    let full = || ServiceBuilder::new().load_shed().layer(GlobalConcurrencyLimitLayer::new(1)).into_inner();
    let by_type = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(full()).map_response(any_body);
    let client = over_tonic(by_type).await;
    let other = over_tonic(ServiceBuilder::new().layer(ErrorResponseLayer::grpc()).layer(full())).await;
    for mut client in [client, other] {
        check(&mut client, "").await.unwrap();
        let mut second = client.clone();
        let rejected = tokio::select! {
            result = check(&mut client, "slow") => result.unwrap_err(),
            result = check(&mut second, "slow") => result.unwrap_err(),
        };
        assert_eq!((rejected.code(), rejected.message()), (Code::Unavailable, "service overloaded"));
    }
}

/// Metrics and tracing refuse nothing, so on services that cannot fail they need nobody to answer for them.
#[tokio::test]
async fn layers_that_cannot_reject_sit_there_alone() {
    let metrics = MetricsLayer::new();
    let address = over_axum(ServiceBuilder::new().layer(metrics.clone()).layer(TracingLayer::new())).await;
    assert_says(&http_get(address, "/hello").await, &["http/1.1 200"]);
    let mut client = over_tonic(ServiceBuilder::new().layer(metrics.clone()).layer(TracingLayer::new())).await;
    check(&mut client, "").await.unwrap();
    // Without the feature `axum` there is nothing to read axum's routes by.
    let route = if cfg!(feature = "axum") { "GET /hello" } else { "GET" };
    assert_says(
        &metrics.render(),
        &[
            &format!(r#"{{operation="{route}",outcome="ok"}} 1"#),
            r#"{operation="grpc.health.v1.Health/Check",outcome="ok"} 1"#,
        ],
    );
}

/// Clients can make up methods and services without end. A server says of each that it is not implemented.
#[tokio::test]
async fn methods_that_no_service_has_take_no_place() {
    let metrics = MetricsLayer::new();
    let address = serve_tonic(ServiceBuilder::new().layer(metrics.clone()).layer(TracingLayer::new()));
    let mut client = connect(address).await;
    for number in 0..20 {
        for path in [format!("/made.Up/Method{number}"), format!("/grpc.health.v1.Health/Made{number}")] {
            let rejected = call(address, path.try_into().unwrap()).await.unwrap_err();
            assert_eq!(rejected.code(), Code::Unimplemented, "{rejected}");
        }
    }
    check(&mut client, "").await.unwrap();
    let page = metrics.render();
    assert_says(
        &page,
        &[
            r#"{operation="unknown",outcome="unsupported"} 40"#,
            r#"{operation="grpc.health.v1.Health/Check",outcome="ok"} 1"#,
        ],
    );
    assert!(!page.to_lowercase().contains("made"), "{page}");
}

/// Calls a method of gRPC by its path alone.
async fn call(address: SocketAddr, path: http::uri::PathAndQuery) -> Result<(), Status> {
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    client.unary(tonic::Request::new(HealthCheckRequest::default()), path, codec).await.map(drop)
}

/// A refusal in the headers of a gRPC response has HTTP's status 200, and is counted as what it is.
#[tokio::test]
async fn metrics_around_the_layer_that_responds() {
    let metrics = MetricsLayer::new();
    let layers = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(ErrorResponseLayer::grpc())
        .layer(RateLimiterLayer::new(1, HOUR));
    let mut client = over_tonic(layers).await;
    check(&mut client, "").await.unwrap();
    check(&mut client, "").await.unwrap_err();
    assert_says(&metrics.render(), &[r#"outcome="ok"} 1"#, r#"outcome="rate_limited"} 1"#]);
}

/// One service of a server can have layers of its own, where it keeps its name.
#[tokio::test]
async fn a_named_service_keeps_its_name_beneath_every_layer() {
    let layered = ServiceBuilder::new()
        .layer(ErrorResponseLayer::grpc())
        .layer(MetricsLayer::new())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(1, HOUR))
        .layer(RateLimiterLayer::new(9, HOUR).wait(HOUR, 1))
        .layer(TimeoutLayer::new(HOUR))
        .service(HealthServer::new(Checks));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(layered);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    let mut client = connect(address).await;
    check(&mut client, "").await.unwrap();
    assert_eq!(check(&mut client, "").await.unwrap_err().code(), Code::ResourceExhausted);
}

/// Captures the log of this thread, on which the servers of a test run as well.
fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let events = tracing_subscriber::fmt::format::FmtSpan::CLOSE;
    let subscriber = tracing_subscriber::fmt().with_span_events(events).with_ansi(false).with_writer(log.clone());
    (log, capture(subscriber.finish()))
}
