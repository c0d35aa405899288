//! Errors that tower's own layers have put into boxes keep their kind and the time to retry.

use std::time::Duration;

use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_kernels::error::{AnyError, ErrorKind};
use tower_kernels::layers::{CircuitBreakerLayer, MetricsLayer, RateLimiterLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerError;

use crate::support::probe::{Act, Request, probe};

const SECOND: Duration = Duration::from_secs(1);

/// A service that is full is no failing service: the rejections of tower's `LoadShed` do not open the circuit.
#[tokio::test(start_paused = true)]
async fn overload_does_not_open_the_circuit() {
    let (probe, _watch) = probe(1);
    let service =
        ServiceBuilder::new().layer(CircuitBreakerLayer::new()).load_shed().concurrency_limit(1).service(probe);
    let calls = (0..50).map(|_| service.clone().oneshot(Request::new(Act::Take(SECOND))));
    let results = futures::future::join_all(calls).await;
    let rejected = results.iter().filter_map(|result| result.as_ref().err());
    let kinds: Vec<_> = rejected.map(|error| error.classify().kind).collect();
    assert_eq!(kinds, vec![ErrorKind::Overloaded; 49]);
    let next = service.oneshot(Request::new(Act::Answer)).await;
    assert!(!matches!(next, Err(CircuitBreakerError::Open { .. })), "{next:?}");
}

/// What a rate limiter says inside of tower's `Buffer` is what those outside of it are told.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_in_a_buffer_says_when_to_retry() {
    let (probe, _watch) = probe(8);
    let metrics = MetricsLayer::new();
    let mut service = ServiceBuilder::new()
        .layer(metrics.clone())
        .buffer(8)
        .layer(RateLimiterLayer::new(1, SECOND * 60))
        .service(probe);
    service.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap();
    let error: BoxError = service.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap_err();
    assert!(metrics.render().contains(r#"outcome="rate_limited"} 1"#), "{}", metrics.render());
    let classification = error.classify();
    assert_eq!(classification.kind, ErrorKind::RateLimited);
    assert!(classification.retry_after.is_some_and(|wait| wait > SECOND * 59), "{classification:?}");
}
