//! Calls that end before their answer: by the clock, or because nobody waits for it.

use std::time::{Duration, Instant};

use tonic::{Code, Request};
use tonic_types::StatusExt;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, ServiceExt};
use tower_kernels::grpc::{ExecuteStreamRequest, GrpcConfig, proto::execute_stream_request::Call};
use tower_kernels::service::KernelService;

use crate::grpc::server::{Elsewhere, Running, nap};
use crate::support::kernels::registry;

fn within<T>(message: T, timeout: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[tokio::test]
async fn past_the_callers_deadline_the_kernel_stops_and_the_status_says_so() {
    let server = Running::start().await;
    let begun = Instant::now();
    let status = server.patient_client().execute(within(nap(60_000), "300m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "deadline_exceeded");
    assert!((Duration::from_millis(250)..Duration::from_secs(50)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    server.naps.until(0).await;
}

#[tokio::test]
async fn without_one_the_servers_own_limit_counts() {
    let server = Running::with_config(GrpcConfig { timeout: Duration::from_millis(50), ..Default::default() }).await;
    let status = server.client().await.execute(nap(60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    server.naps.until(0).await;
}

#[tokio::test]
async fn the_wait_for_capacity_counts() {
    let (registry, naps) = registry();
    let full = ConcurrencyLimitLayer::new(0).layer(KernelService::new(registry));
    let server = Running::over(full, GrpcConfig::default()).await;
    let status = server.patient_client().execute(within(nap(1), "200m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("before the call"), "{status}");
    naps.until(0).await;
}

#[tokio::test]
async fn a_malformed_timeout_is_rejected() {
    let server = Running::start().await;
    let status = server.patient_client().execute(within(nap(1), "soon")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "grpc-timeout");
}

#[tokio::test]
async fn a_message_that_trickles_in_is_cut_off() {
    let server = Running::with_config(GrpcConfig { timeout: Duration::from_millis(200), ..Default::default() }).await;
    // The head of a message of 100 bytes, of which none follows.
    let head = futures::stream::iter([Ok::<_, tonic::Status>(http_body::Frame::data(bytes::Bytes::from_static(&[
        0, 0, 0, 0, 100,
    ])))]);
    let body = http_body_util::StreamBody::new(futures::StreamExt::chain(head, futures::stream::pending()));
    let request = http::Request::post(format!("http://{}/tower_kernels.v1.Kernel/Execute", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let response = server.channel().await.oneshot(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn a_client_that_gives_up_cancels_its_kernel() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.execute(nap(600_000)).await });
    server.naps.until(1).await;
    call.abort();
    server.naps.until(0).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_all_of_its_stream() {
    let server = Running::start().await;
    let requests = (0..2).map(|tag| ExecuteStreamRequest { tag, call: Some(Call::Json(nap(600_000))), timeout_ms: 0 });
    let requests = futures::StreamExt::chain(futures::stream::iter(requests), futures::stream::pending());
    let client = Elsewhere::stream(server.address, requests);
    server.naps.until(2).await;
    drop(client);
    server.naps.until(0).await;
}
