use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{CircuitBreakerLayer, FallbackLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerConfig;
use tower_kernels::middleware::fallback::FallbackError;

use crate::support::probe::{Act, Probe, ProbeError, Request, Watch, probe};

const SECOND: Duration = Duration::from_secs(1);

/// A layer with a fallback that has one permit and acts like the primary service, but succeeds where that fails.
fn layer() -> (FallbackLayer<Answering, Request>, Watch) {
    let (probe, watch) = probe(1);
    (FallbackLayer::new(Answering(probe)), watch)
}

#[derive(Clone, Debug)]
struct Answering(Probe);

impl Service<Request> for Answering {
    type Response = crate::support::probe::Response;
    type Error = ProbeError;
    type Future = crate::support::probe::ProbeFuture;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), ProbeError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The tenant of the request says what the fallback does.
        let act = match request.tenant.as_deref() {
            Some("fails") => Act::Fail(ErrorKind::Internal),
            Some("slow") => Act::Take(SECOND * 5),
            _ => Act::Answer,
        };
        self.0.call(Request { act, ..request })
    }
}

#[tokio::test(start_paused = true)]
async fn chosen_errors_go_to_the_fallback_and_others_do_not() {
    for kind in ErrorKind::ALL {
        let (layer, watch) = layer();
        let (primary, first) = probe(1);
        let mut service = layer.layer(primary);
        let result = service.ready().await.unwrap().call(Request::new(Act::Fail(kind))).await;
        let chosen = matches!(kind, ErrorKind::Unavailable | ErrorKind::Overloaded);
        assert_eq!(result.is_ok(), chosen, "{kind}");
        assert_eq!((first.calls(), watch.calls()), (1, usize::from(chosen)), "{kind}");
        assert_eq!((layer.snapshot().fell_back, layer.snapshot().in_flight), (u64::from(chosen), 0));
        if let Err(error) = result {
            assert_eq!(error, FallbackError::Primary(ProbeError(kind)));
        }
    }
    let (layer, watch) = layer();
    let mut service = layer.on([ErrorKind::Internal]).layer(probe(1).0);
    service.ready().await.unwrap().call(Request::new(Act::Fail(ErrorKind::Internal))).await.unwrap();
    assert_eq!(watch.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_not_called_while_the_primary_service_succeeds() {
    let (layer, watch) = layer();
    let mut service = layer.layer(probe(1).0);
    for _ in 0..100 {
        tokio::task::coop::unconstrained(service.ready()).await.unwrap();
        assert_eq!(watch.in_use(), 0);
        service.call(Request::new(Act::Answer)).await.unwrap();
    }
    assert_eq!((watch.calls(), layer.snapshot().fell_back), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn errors_and_requests_can_be_chosen_by_closures() {
    let (layer, watch) = layer();
    let mut service = layer
        .when(|error: &ProbeError| error.kind() == ErrorKind::TooLarge)
        .only(|request: &Request| request.bytes.is_some())
        .layer(probe(1).0);
    let mut call = async |bytes, kind| {
        let request = Request { bytes, ..Request::new(Act::Fail(kind)) };
        service.ready().await.unwrap().call(request).await.is_ok()
    };
    assert!(!call(None, ErrorKind::TooLarge).await);
    assert!(!call(Some(1), ErrorKind::Unavailable).await);
    assert!(call(Some(1), ErrorKind::TooLarge).await);
    assert_eq!(watch.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn if_both_fail_the_error_contains_both() {
    let (layer, _) = layer();
    let mut service = layer.layer(probe(1).0);
    let request = Request::by("fails", Act::Fail(ErrorKind::Overloaded));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    let FallbackError::Both { primary, fallback } = error else { panic!("{error:?}") };
    assert_eq!((primary.0, fallback.0), (ErrorKind::Overloaded, ErrorKind::Internal));
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Internal, Some(SECOND * 7)));
    assert_eq!(error.source().unwrap().to_string(), fallback.to_string());
    assert_eq!((layer.snapshot().failed, layer.snapshot().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_primary_service_whose_readiness_fails_is_skipped() {
    let (layer, watch) = layer();
    let (primary, first) = probe(1);
    first.fail_readiness(ErrorKind::Unavailable);
    let mut service = layer.layer(primary.clone());
    for _ in 0..3 {
        service.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap();
    }
    assert_eq!((first.calls(), watch.calls()), (0, 3));
    // A request that the fallback must not run fails with the error of the primary service.
    let mut service = layer.clone().only(|_: &Request| false).layer(primary.clone());
    let error = service.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap_err();
    assert_eq!(error, FallbackError::Primary(ProbeError(ErrorKind::Unavailable)));

    first.fail_readiness(ErrorKind::Internal);
    let mut service = layer.layer(primary);
    assert_eq!(service.ready().await.unwrap_err(), FallbackError::Primary(ProbeError(ErrorKind::Internal)));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_waits_for_readiness_of_its_own_up_to_the_deadline() {
    let (layer, watch) = layer();
    let mut service = layer.layer(probe(2).0);
    let mut request = Request::by("slow", Act::Fail(ErrorKind::Unavailable));
    let occupied = service.ready().await.unwrap().call(request.clone());
    let occupied = tokio::spawn(occupied);
    tokio::time::advance(SECOND).await;
    tokio::task::yield_now().await;
    assert_eq!((watch.in_use(), layer.snapshot().in_flight), (1, 1));

    let begun = Instant::now();
    request.deadline = Some((begun + SECOND * 2).into_std());
    let error = service.ready().await.unwrap().call(request.clone()).await.unwrap_err();
    assert_eq!(error, FallbackError::Primary(ProbeError(ErrorKind::Unavailable)));
    assert_eq!((begun.elapsed(), layer.snapshot().deadline_exceeded, watch.calls()), (SECOND * 2, 1, 1));

    request.deadline = None;
    request.tenant = None;
    service.ready().await.unwrap().call(request.clone()).await.unwrap();
    occupied.await.unwrap().unwrap();

    // Past the deadline the fallback is not called.
    request.deadline = Some(Instant::now().into_std());
    service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!((watch.calls(), layer.snapshot().deadline_exceeded, layer.snapshot().in_flight), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn it_falls_back_when_the_circuit_is_open() {
    let (layer, watch) = layer();
    let breaker =
        CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: Some(1), ..Default::default() });
    let (primary, first) = probe(1);
    let mut service = layer.layer(breaker.layer(primary));
    for _ in 0..5 {
        service.ready().await.unwrap().call(Request::new(Act::Fail(ErrorKind::Unavailable))).await.unwrap();
    }
    assert_eq!((first.calls(), watch.calls()), (1, 5));
}
