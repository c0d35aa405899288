//! A service of the user's own in place of the kernels: what reaches it, and how its refusals look.

use crate::support::kernels;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::Local;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{RateLimiterLayer, TimeoutLayer};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::pipeline::{LocalPipeline, PipelineConfig, PipelineError, PipelineLayer};
use tower_kernels::request::{Execution, Priority, RequestContext, Tenant, TraceContext};
use tower_kernels::service::{KernelRequest, KernelResponse, KernelService, Payload};

use crate::axum::server::{JSON, Server};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BODY: &[u8] = br#"{"kernel_id": "linalg/saxpy", "input": 1}"#;

#[derive(Debug, thiserror::Error)]
#[error("the service refuses")]
struct Refusal(ErrorKind, Option<Duration>);

/// The same, of who has not said who it is.
#[derive(Debug, thiserror::Error)]
#[error("nobody knows you")]
struct Stranger(Option<HeaderValue>);

impl Classify for Stranger {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unauthenticated
    }
    fn challenge(&self) -> Option<HeaderValue> {
        self.0.clone()
    }
}

impl Classify for Refusal {
    fn kind(&self) -> ErrorKind {
        self.0
    }
    fn retry_after(&self) -> Option<Duration> {
        self.1
    }
}

fn nothing() -> KernelResponse {
    KernelResponse::new(Payload::json("null"), Execution::new("none"))
}

/// A server that keeps what came to its service, behind a layer that puts in a tenant if there is one.
async fn recorder(tenant: Option<Tenant>) -> (Server, Arc<Mutex<Vec<KernelRequest>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let service = service_fn(move |request: KernelRequest| {
        sink.lock().unwrap().push(request);
        async { Ok::<_, Refusal>(nothing()) }
    });
    let mut router =
        KernelRouter::with_service(service, &RegistryOnly::new(kernels::registry().0), RouterConfig::default())
            .into_router();
    if let Some(tenant) = tenant {
        let authenticate = tower::util::MapRequestLayer::new(move |mut request: axum::extract::Request| {
            request.extensions_mut().insert(tenant.clone());
            request
        });
        router = router.layer(authenticate);
    }
    (Server::serve(router).await, seen)
}

#[tokio::test]
async fn metadata_and_headers_reach_the_service() {
    let (server, seen) = recorder(None).await;
    let headers = [JSON, ("traceparent", PARENT), ("tracestate", "a=b"), ("grpc-timeout", "5S")];
    let body = br#"{"kernel_id": "a/b", "input": [1, 2], "metadata": {"priority": "high", "tenant": "acme"}}"#;
    assert_eq!(server.request("POST", "/execute", &headers, body).await.status, 200);
    let request = seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (&*request.kernel_id, request.tenant.as_deref(), request.priority),
        ("a/b", Some("acme"), Priority::High)
    );
    let trace = request.trace_context().unwrap();
    assert_eq!((trace.to_string().as_str(), trace.state()), (PARENT, Some("a=b")));
    assert!(request.deadline.unwrap() <= Instant::now() + Duration::from_secs(5));
    assert!(matches!(&request.payload, Payload::Json(input) if input == "[1, 2]"));

    // With nothing said there is a deadline all the same.
    assert_eq!(server.request("POST", "/execute", &[JSON], BODY).await.status, 200);
    let request = seen.lock().unwrap().pop().unwrap();
    assert!(request.deadline.unwrap() <= Instant::now() + Duration::from_secs(30));
    assert_eq!((request.tenant, request.trace), (None, None::<Box<TraceContext>>));
}

#[tokio::test]
async fn who_a_layer_found_the_tenant_to_be_is_what_counts() {
    let (server, seen) = recorder(Some(Tenant("checked".into()))).await;
    let body = br#"{"kernel_id": "a/b", "input": 1, "metadata": {"tenant": "claimed"}}"#;
    assert_eq!(server.request("POST", "/execute", &[JSON], body).await.status, 200);
    assert_eq!(seen.lock().unwrap().pop().unwrap().tenant.as_deref(), Some("checked"));
}

#[tokio::test]
async fn rejections_of_any_kind_have_the_tables_status() {
    for kind in ErrorKind::ALL {
        let wait = (kind == ErrorKind::RateLimited).then_some(Duration::from_millis(2500));
        let service = service_fn(move |_: KernelRequest| async move { Err::<KernelResponse, _>(Refusal(kind, wait)) });
        let router =
            KernelRouter::with_service(service, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
        let server = Server::serve(router.into_router()).await;
        let response = server.request("POST", "/execute", &[JSON], BODY).await;
        let says = match kind {
            ErrorKind::Internal => "an internal error; the server's log says more about this request",
            _ => "the service refuses",
        };
        assert_eq!(response.problem(kind.http_status(), kind.code()), says);
        let retry_after = match kind {
            ErrorKind::RateLimited => Some("3"),
            ErrorKind::MemoryExhausted | ErrorKind::Overloaded | ErrorKind::Quarantined | ErrorKind::Unavailable => {
                Some("1")
            }
            _ => None,
        };
        assert_eq!(response.header("retry-after"), retry_after, "{kind}");
    }
}

#[tokio::test]
async fn an_unauthenticated_request_gets_a_challenge() {
    for (challenge, said) in
        [(None, r#"Bearer realm="kernels""#), (Some("Basic realm=\"mine\""), r#"Basic realm="mine""#)]
    {
        let service = service_fn(move |_: KernelRequest| async move {
            Err::<KernelResponse, _>(Stranger(challenge.map(HeaderValue::from_static)))
        });
        // Under a layer, whose error passes on what the one inside says.
        let service = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::from_secs(30))).service(service);
        let router =
            KernelRouter::with_service(service, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
        let server = Server::serve(router.into_router()).await;
        let response = server.request("POST", "/execute", &[JSON], BODY).await;
        assert_eq!(response.problem(401, "unauthenticated"), "nobody knows you");
        assert_eq!(response.header("www-authenticate"), Some(said));
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_is_counted_by_the_outcome_of_its_response() {
    const CALLS: usize = 20;
    let server = Server::start().await;
    for _ in 0..CALLS {
        let headers = [JSON, ("connect-timeout-ms", "20")];
        let response = server.request("POST", "/kernels/test/nap/execute", &headers, br#"{"millis": 60000}"#).await;
        response.problem(504, "deadline_exceeded");
    }
    let page = server.get("/metrics").await.body;
    let ended: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with(r#"kernel_requests_total{operation="test/nap""#) && !line.ends_with(" 0"))
        .collect();
    let all = format!(r#"{{operation="test/nap",outcome="deadline_exceeded"}} {CALLS}"#);
    assert_eq!(ended, [format!("kernel_requests_total{all}")]);
}

#[tokio::test]
async fn a_layers_rejection_is_counted_and_has_retry_after() {
    let service = ServiceBuilder::new()
        .layer(RateLimiterLayer::new(1, Duration::from_secs(600)))
        .service(service_fn(|_: KernelRequest| async { Ok::<_, Refusal>(nothing()) }));
    let router =
        KernelRouter::with_service(service, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    assert_eq!(server.request("POST", "/execute", &[JSON], BODY).await.status, 200);
    let rejected = server.request("POST", "/execute", &[JSON], BODY).await;
    rejected.problem(429, "rate_limited");
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((500..=600).contains(&wait), "{wait}");
    assert_eq!(
        server.metric(r#"kernel_domain_requests_total{domain="linalg",outcome="rate_limited"}"#).await,
        Some(1.0)
    );
}

#[tokio::test]
async fn the_wait_for_a_service_that_is_full_ends_with_the_deadline() {
    let full = ServiceBuilder::new()
        .concurrency_limit(0)
        .service(service_fn(|_: KernelRequest| async { Ok::<_, Refusal>(nothing()) }));
    let router = KernelRouter::with_service(full, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
    let server = Server::serve(router.timeout(Duration::from_millis(50)).into_router()).await;
    let response = server.request("POST", "/execute", &[JSON], BODY).await;
    assert!(response.problem(504, "deadline_exceeded").contains("before the call"));
    // It is full, and that passes.
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[derive(Clone)]
struct Gone;

impl tower::Service<KernelRequest> for Gone {
    type Response = KernelResponse;
    type Error = Refusal;
    type Future = std::future::Ready<Result<KernelResponse, Refusal>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Refusal>> {
        std::task::Poll::Ready(Err(Refusal(ErrorKind::Unavailable, None)))
    }

    fn call(&mut self, _: KernelRequest) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test]
async fn with_a_backend_that_has_stopped_it_is_not_ready() {
    let server = Server::serve(
        KernelRouter::with_service(Gone, &RegistryOnly::new(kernels::registry().0), RouterConfig::default())
            .into_router(),
    )
    .await;
    assert_eq!(server.get("/health/ready").await.problem(503, "unavailable"), "the service refuses");
    let health = server.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["components"]["execution"]["reason"]),
        (503, &"the service refuses".into())
    );
    assert_eq!(server.get("/health/live").await.status, 200);
    server.request("POST", "/execute", &[JSON], BODY).await.problem(503, "unavailable");
}

/// The first call of a pipeline that lets one through reaches the kernels, and the second is told when to come back.
async fn is_served_in_boxes<S>(pipeline: S)
where
    S: Service<KernelRequest, Response = KernelResponse, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let router =
        KernelRouter::with_service(pipeline, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    let invalid = server.request("POST", "/execute", &[JSON], BODY).await;
    assert_eq!((invalid.status, &invalid.json()["code"]), (400, &"invalid_argument".into()));
    assert_eq!(invalid.json()["field"], "input");
    let limited = server.request("POST", "/execute", &[JSON], BODY).await;
    assert_eq!((limited.status, &limited.json()["code"]), (429, &"rate_limited".into()));
    assert_eq!(limited.header("retry-after"), Some("3600"));
}

#[tokio::test]
async fn a_pipeline_in_towers_boxes_is_served() {
    let kernels = || {
        let limit = RateLimiterLayer::new(1, Duration::from_secs(3600));
        ServiceBuilder::new().layer(limit).service(KernelService::new(kernels::registry().0))
    };
    is_served_in_boxes(ServiceBuilder::new().buffer(16).service(kernels())).await;
    is_served_in_boxes(ServiceBuilder::new().load_shed().service(kernels())).await;
    is_served_in_boxes(BoxCloneSyncService::new(kernels().map_err(BoxError::from))).await;
    is_served_in_boxes(BoxCloneSyncService::new(ServiceBuilder::new().buffer(16).load_shed().service(kernels()))).await;
}

/// A service of one's own around a pipeline: nothing can be asked of its type.
fn hidden(
    pipeline: &LocalPipeline,
) -> impl Service<KernelRequest, Response = KernelResponse, Error = PipelineError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    ServiceBuilder::new().map_request(|request: KernelRequest| request).service(pipeline.clone())
}

#[tokio::test]
async fn health_metrics_and_timeout_are_those_of_the_kernels_inside() {
    let config = PipelineConfig { timeout: Duration::from_millis(50), ..Default::default() };
    let pipeline = PipelineLayer::new(kernels::registry().0, config).unwrap().over(Local::detect());
    let router = KernelRouter::with_service(hidden(&pipeline), &pipeline, RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    let response = server.request("POST", "/kernels/test/nap/execute", &[JSON], br#"{"millis": 60000}"#).await;
    response.problem(504, "deadline_exceeded");
    let health = server.get("/health").await.json();
    assert_eq!(health["components"]["cpu"]["status"], "healthy", "{health}");
    assert!(health["components"]["cuda"].is_object() && health["components"]["circuits"].is_object(), "{health}");
    // Counted once, by the pipeline.
    let line = r#"kernel_requests_total{operation="test/nap",outcome="deadline_exceeded"}"#;
    assert_eq!(server.metric(line).await, Some(1.0));
    assert_eq!(pipeline.handle().metrics().ended()[0].count, 1);
    assert_eq!(server.metric(r#"kernel_backend_up{backend="CPU"}"#).await, Some(1.0));
    assert!(server.metric("kernel_pipeline_queue_capacity").await.is_some());
}

#[tokio::test]
async fn a_pipeline_around_kernels_of_ones_own_is_shown_with_their_devices() {
    let kernels = KernelService::new(kernels::registry().0);
    let layer = PipelineLayer::new(kernels::registry().0, PipelineConfig::default()).unwrap();
    let pipeline = layer.layer(kernels.clone());
    let router = KernelRouter::with_service(pipeline, &(layer.handle(), kernels), RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    let health = server.get("/health").await.json();
    assert!(health["components"]["cpu"].is_object() && health["components"]["circuits"].is_object(), "{health}");

    let alone = KernelRouter::with_service(Gone, &RegistryOnly::new(kernels::registry().0), RouterConfig::default());
    let server = Server::serve(alone.into_router()).await;
    let health = server.get("/health").await.json();
    assert!(health["components"].get("cpu").is_none(), "{health}");
    assert_eq!(server.metric(r#"kernel_backend_up{backend="CPU"}"#).await, None);
}
