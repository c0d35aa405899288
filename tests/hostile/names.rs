//! Names that clients choose: tenants, request ids, kernels, operations.

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_types::StatusExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, GetKernelRequest, KernelClient};
use tower_kernels::layers::{
    CircuitBreakerLayer, ConcurrencyLayer, MetricsLayer, PriorityQueueLayer, RateLimiterLayer,
};
use tower_kernels::middleware::authenticate::{AuthenticateLayer, Credential, Denied, Identity};
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, Payload};

use super::size;
use crate::support::process::{SAXPY, Server};

const SECOND: Duration = Duration::from_secs(1);

fn execute(kernel: &str, tenant: &str) -> String {
    let input: serde_json::Value = serde_json::from_str(SAXPY).unwrap();
    serde_json::json!({"kernel_id": kernel, "input": input, "metadata": {"tenant": tenant}}).to_string()
}

/// Bytes of memory that the process has.
fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Whatever a client calls itself, it is told which field is wrong, and none of it is kept or sent back.
#[test]
#[cfg(target_os = "linux")]
fn long_names_are_rejected_and_not_stored() {
    let server = Server::start(&["--rate-limit-per-second=1000000"]);
    assert_eq!(server.post("/execute", &execute("linalg/saxpy", "acme")).0, 200);
    let (bytes, tenants) = size((2 << 20, 60), (9 << 20, 400));
    // What a first request of this size takes stays with the allocator.
    let rejected = |n: usize| {
        let name = format!("{n}{}", "x".repeat(bytes));
        let (status, body) = server.post("/execute", &execute("linalg/saxpy", &name));
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &problem["field"]), (400, &"metadata.tenant".into()), "{:.200}", problem.to_string());
        assert!(body.len() < 1000, "{} bytes", body.len());
    };
    rejected(0);
    let before = resident(&server);
    (1..tenants).for_each(rejected);
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < bytes * tenants / 2, "{grown} bytes more after {tenants} names of {bytes}");
}

#[test]
fn names_are_checked_wherever_they_come_in_over_rest() {
    let server = Server::start(&[]);
    let long = "x".repeat(200);
    for (path, body, field) in [
        ("/execute", execute("linalg/saxpy", &long), "metadata.tenant"),
        ("/execute", execute("linalg/saxpy", "a\nb"), "metadata.tenant"),
        ("/execute", execute("linalg/saxpy", "\u{202e}emca"), "metadata.tenant"),
        ("/execute", execute(&"x".repeat(1 << 20), "acme"), "kernel_id"),
        ("/execute", execute("linalg/saxpy\0", "acme"), "kernel_id"),
    ] {
        let (status, response) = server.post(path, &body);
        let problem: serde_json::Value = serde_json::from_str(&response).unwrap();
        assert_eq!((status, &problem["field"]), (400, &field.into()), "{problem}");
        assert!(response.len() < 1000);
    }
    let (status, response) = server.post(&format!("/kernels/{}/execute", "x".repeat(8000)), SAXPY);
    assert!(matches!(status, 400 | 404) && response.len() < 3000, "{status} {response}");
    let (metrics, text) = server.get("/metrics");
    assert!(metrics == 200 && !text.contains("xxxxxxxx"));
    for good in ["acme", "Bäckerei Süß", "made up 7", &"x".repeat(128)] {
        assert_eq!(server.post("/execute", &execute("linalg/saxpy", good)).0, 200, "{good}");
    }
}

#[tokio::test]
async fn names_are_checked_wherever_they_come_in_over_grpc() {
    let server = Server::start(&[]);
    let mut client = KernelClient::new(server.channel().await);
    let call = |kernel: &str| ExecuteRequest { kernel_id: kernel.to_owned(), input: SAXPY.to_owned() };
    let field_of = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().len() < 500);
        status.get_error_details().bad_request().unwrap().field_violations[0].field.clone()
    };
    let is_unknown = |status: &tonic::Status| {
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(status.message().len() < 1100 && !status.message().contains('\n'));
    };
    let with_tenant = |tenant: MetadataValue<_>| {
        let mut request = Request::new(call("linalg/saxpy"));
        request.metadata_mut().insert("tenant", tenant);
        request
    };
    for tenant in ["x".repeat(200).parse().unwrap(), MetadataValue::try_from(&b"b\xc3\xa4cker"[..]).unwrap()] {
        assert_eq!(field_of(client.execute(with_tenant(tenant)).await.unwrap_err()), "tenant");
    }
    client.execute(with_tenant("x".repeat(128).parse().unwrap())).await.unwrap();

    for kernel in ["x".repeat(1 << 20), "linalg/\nsaxpy".to_owned()] {
        is_unknown(&client.execute(call(&kernel)).await.unwrap_err());
    }
    let long = GetKernelRequest { kernel_id: "x".repeat(200) };
    is_unknown(&client.get_kernel(long).await.unwrap_err());
    let call = tower_kernels::grpc::proto::execute_stream_request::Call::Json(call(&"x".repeat(200)));
    let request = ExecuteStreamRequest { tag: 7, timeout_ms: 0, call: Some(call) };
    let responses = client.execute_stream(futures::stream::once(async { request })).await.unwrap();
    is_unknown(&responses.into_inner().message().await.unwrap_err());
}

/// A service that keeps nothing of its requests.
fn answering() -> impl Service<
    KernelRequest,
    Response = KernelResponse,
    Error = KernelError,
    Future = std::future::Ready<Result<KernelResponse, KernelError>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|_| std::future::ready(Ok(KernelResponse::new(Payload::json("1"), Execution::new("CPU")))))
}

fn request_of(tenant: &Arc<str>) -> KernelRequest {
    let mut request = KernelRequest::new("a", Payload::json("1"));
    request.tenant = Some(Arc::clone(tenant));
    request
}

/// Programs that build their own pipelines may check no names. The layers keep no long one, and one that is not long.
#[tokio::test]
async fn layers_keep_no_long_tenant() {
    let long: Arc<str> = "x".repeat(9 << 20).into();

    let limit = RateLimiterLayer::new(2, 3600 * SECOND).per_tenant();
    let mut service = limit.layer(answering());
    for _ in 0..2 {
        service.ready().await.unwrap().call(request_of(&long)).await.unwrap();
    }
    assert_eq!((Arc::strong_count(&long), limit.snapshot().keys), (1, 0));
    // It has had the quota of those without a name.
    assert!(service.ready().await.unwrap().call(KernelRequest::new("a", Payload::json("1"))).await.is_err());
    service.ready().await.unwrap().call(request_of(&"acme".into())).await.unwrap();
    assert_eq!(limit.snapshot().keys, 1);

    let fair = ConcurrencyLayer::new(1).per_tenant(SECOND, 8);
    fair.layer(answering()).oneshot(request_of(&long)).await.unwrap();
    let queue = PriorityQueueLayer::new(8).weight("acme", NonZeroU16::MIN);
    queue.layer(answering()).oneshot(request_of(&long)).await.unwrap();
    assert_eq!(Arc::strong_count(&long), 1);
}

#[tokio::test]
async fn layers_keep_no_long_operation() {
    let long = "x".repeat(1 << 20);
    let metrics = MetricsLayer::new();
    let breaker = CircuitBreakerLayer::new().per_operation();
    for operation in [&*long, "linalg/saxpy"] {
        let request = || KernelRequest::new(operation.to_owned(), Payload::json("1"));
        metrics.layer(answering()).oneshot(request()).await.unwrap();
        breaker.layer(answering()).oneshot(request()).await.unwrap();
    }
    let text = metrics.handle().render();
    assert!(text.contains("linalg/saxpy") && !text.contains("xxx"), "{text:.2000}");
    assert!(text.len() < 1 << 20);
    let circuits: Vec<_> = breaker.snapshots().into_iter().map(|status| status.circuit.to_string()).collect();
    assert_eq!(circuits, ["linalg/saxpy", "rest"]);
}

#[tokio::test]
async fn whoever_authenticates_names_no_long_tenant() {
    let verifier = |credential: Credential<'_>| -> Result<Identity, Denied> { Ok(Identity::new(credential.as_str())) };
    let inner = service_fn(|_: http::Request<()>| async { Ok::<_, Infallible>(http::Response::new(())) });
    let service = AuthenticateLayer::new(verifier).layer(inner);
    let as_tenant = |tenant: &str| {
        let request = http::Request::builder().header("authorization", format!("Bearer {tenant}"));
        service.clone().oneshot(request.body(()).unwrap())
    };
    as_tenant("acme").await.unwrap();
    as_tenant(&"x".repeat(128)).await.unwrap();
    assert!(as_tenant(&"x".repeat(129)).await.is_err());
}
