//! Many calls at once in a task that has used up Tokio's cooperative budget: none is taken for one that failed or is slow.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::layers::{CircuitBreakerLayer, FallbackLayer, HedgeLayer, RetryLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerConfig;

use crate::support::probe::{Act, Probe, Request, Response, probe};

const CALLS: usize = 10_000;
const PLACES: usize = 256;
const MILLI: Duration = Duration::from_millis(1);

/// Makes the calls in one task, of which each other poll begins with no budget left, with places for a few at a time.
async fn burst<L>(layer: &L) -> usize
where
    L: Layer<Probe, Service: Service<Request, Response = Response, Error: Debug> + Clone>,
{
    let (probe, watch) = probe(PLACES);
    let service = layer.layer(probe);
    let mut calls: Vec<_> = (0..CALLS)
        .map(|i| {
            let act = if i % 2 == 0 { Act::Answer } else { Act::Take(MILLI) };
            Box::pin(service.clone().oneshot(Request::new(act)))
        })
        .collect();
    let mut polls = 0;
    let all = poll_fn(|cx| {
        polls += 1;
        if polls % 2 == 1 {
            while let Poll::Ready(progress) = coop::poll_proceed(cx) {
                progress.made_progress();
            }
            assert!(!coop::has_budget_remaining());
            // Only what is asked again when there is budget can go on.
            cx.waker().wake_by_ref();
        }
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                answer.expect("no call is refused");
                false
            }
            Poll::Pending => true,
        });
        if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(Duration::from_secs(60), all).await.expect("all calls end");
    assert_eq!(watch.in_use(), 0);
    watch.calls()
}

#[tokio::test(start_paused = true)]
async fn a_burst_opens_no_circuit() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        slow_call_duration: Some(Duration::from_secs(1)),
        slow_call_rate: 0.1,
        ..Default::default()
    });
    assert_eq!(burst(&layer).await, CALLS);
    let status = layer.snapshot();
    assert_eq!((status.calls, status.failures, status.slow), (CALLS as u64, 0, 0));
    assert_eq!((status.opened, status.rejected), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_not_tried_again() {
    let layer = RetryLayer::new(|_: &Request| true);
    assert_eq!(burst(&layer).await, CALLS);
    assert_eq!((layer.snapshot().retries, layer.snapshot().budget_exhausted, layer.snapshot().waiting), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_not_hedged() {
    let layer = HedgeLayer::new(|_: &Request| true).after(Duration::from_secs(1));
    assert_eq!(burst(&layer).await, CALLS);
    assert_eq!((layer.snapshot().hedged, layer.snapshot().budget_exhausted), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_burst_does_not_fall_back() {
    let (fallback, watch) = probe(1);
    let layer = FallbackLayer::new(fallback);
    assert_eq!(burst(&layer).await, CALLS);
    assert_eq!((watch.calls(), layer.snapshot().fell_back, layer.snapshot().in_flight), (0, 0, 0));
}
