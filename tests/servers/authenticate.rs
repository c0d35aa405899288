//! Who calls, over real sockets: services that know nothing of kernels, and kernels over REST and gRPC, whose clients try
//! to be somebody else.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceBuilder, service_fn};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::grpc::proto::{execute_stream_request::Call, execute_stream_response::Outcome};
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, GrpcConfig, KernelClient, KernelGrpcServer};
use tower_kernels::layers::{AuthenticateLayer, ErrorResponseLayer, MetricsLayer, RateLimiterLayer};
use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys, Jwt, JwtKey, Verify};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::request::{Execution, Tenant};
use tower_kernels::service::{KernelRequest, KernelResponse, Payload};

use crate::support::catalogue;

const ACME: &str = "the-one-key-of-acme";
const UMBRELLA: &str = "the-one-key-of-umbrella";
const HOUR: Duration = Duration::from_secs(3600);

fn layer() -> AuthenticateLayer {
    let keys = [ApiKey::new("acme", ACME).unwrap(), ApiKey::new("umbrella", UMBRELLA).unwrap()];
    let goldens: serde_json::Value = serde_json::from_str(include_str!("../goldens/jwt.json")).unwrap();
    let key = JwtKey::eddsa_pem(goldens["keys"]["eddsa"].as_str().unwrap().as_bytes()).unwrap();
    let jwt = Jwt::new(key).issuer("https://login.example").audience("kernels");
    AuthenticateLayer::new(ApiKeys::new(keys).unwrap().or(jwt))
        .exempt(|_, uri| matches!(uri.path(), "/health/live" | "/grpc.health.v1.Health/Check"))
}

fn token(name: &str) -> String {
    let goldens: serde_json::Value = serde_json::from_str(include_str!("../goldens/jwt.json")).unwrap();
    let cases = goldens["tokens"].as_array().unwrap();
    let case = cases.iter().find(|case| case["verifier"] == "eddsa" && case["name"] == name).unwrap();
    format!("Bearer {}", case["token"].as_str().unwrap())
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// The head and the body of the answer.
async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

fn assert_says(response: &str, all: &[&str]) {
    for part in all {
        assert!(response.contains(part), "no {part:?} in {response}");
    }
}

#[tokio::test]
async fn a_router_that_knows_nothing_of_kernels() {
    let metrics = MetricsLayer::new();
    let layers = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(metrics.clone())
        .layer(layer())
        .layer(RateLimiterLayer::new(2, HOUR).per_tenant());
    let hello = async |request: axum::extract::Request| {
        request.extensions().get::<Tenant>().map_or("nobody".to_owned(), |tenant| tenant.0.to_string())
    };
    let app: Router = Router::new().route("/hello", get(hello)).route("/health/live", get(hello)).layer(layers);
    let address = serve(app).await;
    let hello = |headers: Vec<(&'static str, String)>| async move {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        send(address, "GET", "/hello", &headers, "").await
    };

    let missing = hello(vec![]).await;
    assert_says(
        &missing,
        &["HTTP/1.1 401", "www-authenticate: Bearer realm=\"kernels\"\r\n", "application/problem+json"],
    );
    let denied = "www-authenticate: Bearer realm=\"kernels\", error=\"invalid_token\"\r\n";
    let wrong = hello(vec![("x-api-key", "the-one-key-of-nobody".into())]).await;
    assert_says(&wrong, &["HTTP/1.1 401", denied, r#""code":"unauthenticated""#]);
    let late = hello(vec![("authorization", token("expired"))]).await;
    assert_eq!(late.split_once("\r\n\r\n").unwrap().1, wrong.split_once("\r\n\r\n").unwrap().1, "both say the same");

    // A key and a token of one tenant draw from one quota.
    assert_says(&hello(vec![("x-api-key", ACME.into())]).await, &["HTTP/1.1 200", "\r\n\r\nacme"]);
    assert_says(&hello(vec![("authorization", token("good"))]).await, &["HTTP/1.1 200", "\r\n\r\nacme"]);
    assert_says(&hello(vec![("x-api-key", ACME.into())]).await, &["HTTP/1.1 429"]);
    assert_says(&hello(vec![("authorization", format!("Bearer {UMBRELLA}"))]).await, &["\r\n\r\numbrella"]);
    assert_says(&send(address, "GET", "/health/live", &[], "").await, &["HTTP/1.1 200", "\r\n\r\nnobody"]);
    assert_says(&metrics.render(), &[r#"outcome="unauthenticated"} 3"#, r#"outcome="rate_limited"} 1"#]);
}

#[tokio::test]
async fn a_grpc_server_that_knows_nothing_of_kernels() {
    let (_, health) = tonic_health::server::health_reporter();
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::grpc()).layer(layer());
    let channel = serve_grpc(Server::builder().layer(layers).add_service(health)).await;
    let mut client = HealthClient::new(channel);
    let watch = |key: Option<&'static str>| {
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(key) = key {
            request.metadata_mut().insert("x-api-key", key.parse().unwrap());
        }
        request
    };
    client.check(HealthCheckRequest::default()).await.expect("it is exempt");
    for key in [None, Some("the-one-key-of-nobody")] {
        let rejected = client.watch(watch(key)).await.unwrap_err();
        assert_eq!(rejected.code(), Code::Unauthenticated, "{rejected}");
        assert!(!rejected.message().contains("no such API key"), "{rejected}");
    }
    client.watch(watch(Some(ACME))).await.unwrap();
}

/// Keeps whose requests reach it.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Option<String>>>>);

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Classify for Never {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Seen {
    #[allow(clippy::type_complexity, reason = "it is written once")]
    fn service(
        &self,
    ) -> impl Service<KernelRequest, Response = KernelResponse, Error = Never, Future: Send> + Clone + Send + Sync + 'static
    {
        let seen = self.clone();
        service_fn(move |request: KernelRequest| {
            seen.0.lock().unwrap().push(request.tenant.as_deref().map(str::to_owned));
            async { Ok(KernelResponse::new(Payload::json("null"), Execution::new("none"))) }
        })
    }

    fn take(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn over_rest_nobody_can_claim_another_tenant() {
    let seen = Seen::default();
    let router = KernelRouter::with_service(seen.service(), &RegistryOnly::new(catalogue()), RouterConfig::default())
        .into_router();
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::http()).layer(layer());
    let address = serve(router.layer(layers)).await;
    let document = json!({"kernel_id": "linalg/saxpy", "input": 1, "metadata": {"tenant": "umbrella"}}).to_string();
    let json = ("content-type", "application/json");
    let claims = [("tenant", "umbrella"), ("x-tenant", "umbrella")];
    for (path, body) in [("/execute", &*document), ("/kernels/linalg/saxpy/execute", "1")] {
        let with = |credential: (&'static str, String)| async move {
            let headers = [json, (credential.0, &*credential.1), claims[0], claims[1]];
            send(address, "POST", path, &headers, body).await
        };
        assert_says(&with(("x-api-key", ACME.into())).await, &["HTTP/1.1 200"]);
        assert_says(&with(("authorization", token("good"))).await, &["HTTP/1.1 200"]);
        for wrong in [token("other claims under the signature"), token("alg none"), token("expired")] {
            assert_says(&with(("authorization", wrong)).await, &["HTTP/1.1 401"]);
        }
        assert_says(&with(("accept", "*/*".into())).await, &["HTTP/1.1 401"]);
        let acme = Some("acme".to_owned());
        assert_eq!(seen.take(), [acme.clone(), acme], "{path}");
    }
    assert_says(&send(address, "GET", "/health/live", &[], "").await, &["HTTP/1.1 200"]);
    assert_says(&send(address, "GET", "/kernels", &[], "").await, &["HTTP/1.1 401"]);
}

async fn serve_grpc<L>(router: tonic::transport::server::Router<L>) -> Channel
where
    L: tower::Layer<tonic::service::Routes> + Clone + Send + 'static,
    L::Service: Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn over_grpc_nobody_can_claim_another_tenant() {
    let seen = Seen::default();
    let kernels =
        KernelGrpcServer::with_service(seen.service(), &RegistryOnly::new(catalogue()), GrpcConfig::default())
            .into_service();
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::grpc()).layer(layer());
    let channel = serve_grpc(Server::builder().layer(layers).add_service(kernels)).await;
    let mut client = KernelClient::new(channel);
    fn with<T>(message: T, credential: (&'static str, &str)) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("tenant", "umbrella".parse().unwrap());
        request.metadata_mut().insert(credential.0, credential.1.parse().unwrap());
        request
    }
    let execute = || ExecuteRequest { kernel_id: "linalg/saxpy".into(), input: "1".into() };
    let good = token("good");
    for credential in [("x-api-key", ACME), ("authorization", &*good)] {
        client.execute(with(execute(), credential)).await.unwrap();
        let call = ExecuteStreamRequest { tag: 1, timeout_ms: 0, call: Some(Call::Json(execute())) };
        let requests = futures::stream::iter([call]);
        let mut responses = client.execute_stream(with(requests, credential)).await.unwrap().into_inner();
        assert!(matches!(responses.message().await.unwrap().unwrap().outcome, Some(Outcome::Json(_))));
    }
    assert_eq!(seen.take(), vec![Some("acme".to_owned()); 4]);

    let (expired, forged) = (token("expired"), token("other claims under the signature"));
    for credential in
        [("authorization", &*expired), ("authorization", &*forged), ("x-api-key", "umbrella"), ("accept", "*/*")]
    {
        let rejected: Status = client.execute(with(execute(), credential)).await.unwrap_err();
        assert_eq!(rejected.code(), Code::Unauthenticated, "{credential:?}");
    }
    assert_eq!(seen.take(), []);
}
