//! Every refusal, and what it says.

use std::time::Duration;

use tonic::{Code, Request};
use tonic_types::StatusExt;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::grpc::{ExecuteRequest, GrpcConfig, Pipeline};
use tower_kernels::layers::RateLimiterLayer;
use tower_kernels::service::{KernelRequest, KernelResponse, KernelService};

use crate::grpc::server::Running;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("refused as {0}")]
struct Refused(ErrorKind);

impl Classify for Refused {
    fn kind(&self) -> ErrorKind {
        self.0
    }
    fn retry_after(&self) -> Option<Duration> {
        matches!(self.0, ErrorKind::RateLimited | ErrorKind::Overloaded).then_some(Duration::from_millis(1500))
    }
}

#[tokio::test]
async fn every_kind_of_rejection_has_its_code_and_retry_info() {
    let pipeline = tower::service_fn(|request: KernelRequest| {
        let kind = ErrorKind::ALL.into_iter().find(|kind| kind.code() == request.kernel_id).unwrap();
        std::future::ready(Err::<KernelResponse, _>(Refused(kind)))
    });
    let server = Running::over(pipeline, GrpcConfig::default()).await;
    let mut client = server.client().await;
    for kind in ErrorKind::ALL {
        let call = ExecuteRequest { kernel_id: kind.code().into(), input: "{}".into() };
        let mut request = Request::new(call);
        request.metadata_mut().insert("x-request-id", "r1".parse().unwrap());
        let status = client.execute(request).await.unwrap_err();
        assert_eq!(status.code(), Code::from_i32(kind.grpc_code()));
        let says = match kind {
            ErrorKind::Internal => "an internal error; the server's log says more about this request".to_owned(),
            kind => format!("refused as {kind}"),
        };
        assert_eq!(status.message(), says);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, kind.code());
        assert_eq!(details.request_info().unwrap().request_id, "r1");
        let wait = details.retry_info().and_then(|retry| retry.retry_delay);
        assert_eq!(wait, Refused(kind).retry_after(), "{kind}");
    }
}

#[tokio::test]
async fn kernels_reject_with_the_field_and_the_reason() {
    let server = Running::start().await;
    for (kernel, input, code, field, says) in [
        ("no/such", "{}", Code::NotFound, None, "no/such"),
        ("orderbook/matching", "{}", Code::Unimplemented, None, "ring runtime"),
        ("linalg/saxpy", "", Code::InvalidArgument, Some("input"), "input"),
        ("linalg/saxpy", "{\"a\": 1", Code::InvalidArgument, Some("input"), "input"),
        ("linalg/saxpy", r#"{"a": 1, "x": ["1"], "y": [1]}"#, Code::InvalidArgument, Some("x[0]"), "x[0]"),
        ("linalg/saxpy", r#"{"a": 1, "x": [1], "y": []}"#, Code::InvalidArgument, Some("y"), "y"),
        ("test/panics", "true", Code::Internal, None, "an internal error"),
    ] {
        let status = server.execute(kernel, input).await.unwrap_err();
        assert_eq!(status.code(), code, "{kernel} {input}: {status}");
        assert!(status.message().contains(says), "{kernel} {input}: {status}");
        let details = status.get_error_details();
        let violation = details.bad_request().map(|bad| bad.field_violations[0].field.as_str());
        assert_eq!(violation, field, "{kernel} {input}: {status}");
    }
    assert_eq!(server.execute("nap", r#"{"millis": 1}"#).await.unwrap(), r#"{"millis":[1]}"#);
}

#[tokio::test]
async fn an_error_of_any_length_arrives() {
    let server = Running::start().await;
    let id = "é".repeat(100_000);
    let status = server.execute(&id, "{}").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().starts_with("no kernel has the id `é") && status.message().ends_with('…'));
}

async fn is_served_in_boxes(pipeline: impl Pipeline) {
    let server = Running::over(pipeline, GrpcConfig::default()).await;
    let invalid = server.execute("linalg/saxpy", "{}").await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert_eq!(invalid.get_error_details().bad_request().unwrap().field_violations.len(), 1);
    let limited = server.execute("linalg/saxpy", "{}").await.unwrap_err();
    assert_eq!((limited.code(), limited.kind()), (Code::ResourceExhausted, ErrorKind::RateLimited));
    assert!(Classify::retry_after(&limited).is_some_and(|wait| wait > HOUR - HOUR / 10), "{limited:?}");
}

#[tokio::test]
async fn a_pipeline_in_towers_boxes_is_served() {
    let kernels = || {
        let registry = crate::support::kernels::registry().0;
        ServiceBuilder::new().layer(RateLimiterLayer::new(1, HOUR)).service(KernelService::new(registry))
    };
    is_served_in_boxes(ServiceBuilder::new().buffer(16).service(kernels())).await;
    is_served_in_boxes(ServiceBuilder::new().load_shed().service(kernels())).await;
    is_served_in_boxes(BoxCloneSyncService::new(kernels().map_err(BoxError::from))).await;
}
