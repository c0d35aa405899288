//! Many requests on one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::{Code, Request};
use tower::Layer;
use tower::limit::ConcurrencyLimitLayer;
use tower_kernels::grpc::proto::{execute_stream_request::Call, execute_stream_response::Outcome};
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, ExecuteTensorsRequest, GrpcConfig};
use tower_kernels::service::KernelService;

use crate::grpc::server::{Elsewhere, Running, nap};
use crate::support::kernels::registry;

fn call(tag: u64, call: ExecuteRequest) -> ExecuteStreamRequest {
    ExecuteStreamRequest { tag, call: Some(Call::Json(call)), timeout_ms: 0 }
}

/// Each answer's tag, and its code where it is an error.
async fn run(
    server: &Running,
    requests: impl IntoIterator<Item = ExecuteStreamRequest, IntoIter: Send + 'static>,
) -> Vec<(u64, Code)> {
    let requests = futures::stream::iter(requests);
    let mut responses = server.client().await.execute_stream(requests).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        let code = match response.outcome.unwrap() {
            Outcome::Json(_) | Outcome::Tensors(_) => Code::Ok,
            Outcome::Error(status) => {
                assert!(!status.message.is_empty() && !status.details.is_empty());
                Code::from_i32(status.code)
            }
        };
        seen.push((response.tag, code));
    }
    seen
}

#[tokio::test]
async fn responses_come_as_the_kernels_finish() {
    let server = Running::start().await;
    let seen = run(&server, [call(1, nap(700)), call(2, nap(50))]).await;
    assert_eq!(seen, [(2, Code::Ok), (1, Code::Ok)]);
}

#[tokio::test]
async fn one_that_fails_leaves_the_others_alone() {
    let server = Running::start().await;
    let ring = ExecuteRequest { kernel_id: "orderbook/matching".into(), input: "{}".into() };
    let panics = ExecuteRequest { kernel_id: "test/panics".into(), input: "true".into() };
    let late = ExecuteStreamRequest { timeout_ms: 40, ..call(4, nap(60_000)) };
    let empty = ExecuteStreamRequest { tag: 5, call: None, timeout_ms: 0 };
    let tensors = ExecuteTensorsRequest { kernel_id: "linalg/saxpy".into(), inputs: Vec::new() };
    let tensors = ExecuteStreamRequest { tag: 6, call: Some(Call::Tensors(tensors)), timeout_ms: 0 };
    let mut seen = run(&server, [call(1, ring), call(2, panics), call(3, nap(5)), late, empty, tensors]).await;
    seen.sort_unstable_by_key(|(tag, _)| *tag);
    let codes: Vec<_> = seen.into_iter().map(|(_, code)| code).collect();
    let expected = [
        Code::Unimplemented,
        Code::Internal,
        Code::Ok,
        Code::DeadlineExceeded,
        Code::InvalidArgument,
        Code::InvalidArgument,
    ];
    assert_eq!(codes, expected);
    server.naps.until(0).await;
}

#[tokio::test]
async fn thousands_each_get_one_response() {
    let server = Running::start().await;
    let saxpy = |tag| {
        let input = format!(r#"{{"a": {tag}, "x": [1], "y": [0]}}"#);
        call(tag, ExecuteRequest { kernel_id: "linalg/saxpy".into(), input })
    };
    let mut seen = run(&server, (0..3000).map(saxpy)).await;
    seen.sort_unstable_by_key(|(tag, _)| *tag);
    assert!(seen.into_iter().eq((0..3000).map(|tag| (tag, Code::Ok))));
}

#[tokio::test]
async fn readiness_bounds_what_runs_and_what_is_read() {
    let (kernels, naps) = registry();
    let pipeline = ConcurrencyLimitLayer::new(1).layer(KernelService::new(kernels));
    let server = Running::over(pipeline, GrpcConfig::default()).await;

    // The requests are large, so that those which are not read do not fit into the connection's windows.
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let requests = (0..200).map(move |tag| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut request = nap(60_000);
        request.input.push_str(&" ".repeat(100_000));
        call(tag, request)
    });
    let client = Elsewhere::stream(server.address, futures::stream::iter(requests));
    naps.until(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    naps.until(1).await;
    assert!(sent.load(Ordering::SeqCst) < 60, "{} of 200 sent", sent.load(Ordering::SeqCst));
    drop(client);
    naps.until(0).await;
}

#[tokio::test]
async fn a_pipeline_that_is_always_ready_is_bounded_too() {
    let config = GrpcConfig { max_concurrent_per_stream: 1, ..Default::default() };
    let server = Running::with_config(config).await;
    let seen = run(&server, [call(1, nap(200)), call(2, nap(1))]).await;
    assert_eq!(seen, [(1, Code::Ok), (2, Code::Ok)]);
}

#[tokio::test]
async fn a_request_that_never_gets_capacity_ends_at_its_deadline_and_the_next_runs() {
    let (kernels, naps) = registry();
    let pipeline = ConcurrencyLimitLayer::new(1).layer(KernelService::new(kernels));
    let server = Running::over(pipeline, GrpcConfig::default()).await;
    let late = ExecuteStreamRequest { timeout_ms: 50, ..call(2, nap(1)) };
    let seen = run(&server, [call(1, nap(600)), late, call(3, nap(1))]).await;
    assert_eq!(seen, [(2, Code::DeadlineExceeded), (1, Code::Ok), (3, Code::Ok)]);
    naps.until(0).await;
}

#[tokio::test]
async fn a_streams_own_deadline_ends_it() {
    let server = Running::start().await;
    let requests = futures::stream::iter([call(1, nap(60_000))]);
    let requests = futures::StreamExt::chain(requests, futures::stream::pending());
    let mut request = Request::new(requests);
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut responses = server.patient_client().execute_stream(request).await.unwrap().into_inner();
    let mut ended = responses.message().await;
    // The request's deadline is the stream's, and its own answer may come first.
    if let Ok(Some(response)) = &ended {
        assert!(
            matches!(&response.outcome, Some(Outcome::Error(status)) if status.code == Code::DeadlineExceeded as i32)
        );
        ended = responses.message().await;
    }
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    server.naps.until(0).await;
}
