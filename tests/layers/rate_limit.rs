use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::RateLimiterLayer;
use tower_kernels::middleware::rate_limit::{InvalidQuota, RateLimitError};

use crate::support::probe::{Act, ProbeError, Request, probe};
use crate::support::wakes::Wakes;

const SECOND: Duration = Duration::from_secs(1);

fn answer() -> Request {
    Request::new(Act::Answer)
}

async fn call<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_through_and_then_a_token_comes_back_at_a_time() {
    let (probe, watch) = probe(8);
    let mut service = RateLimiterLayer::new(4, SECOND).layer(probe);
    for _ in 0..4 {
        call(&mut service, answer()).await.unwrap();
    }
    let error = call(&mut service, answer()).await.unwrap_err();
    assert_eq!(error, RateLimitError::Limited { retry_after: SECOND / 4 });
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(SECOND / 4)));
    assert_eq!(watch.calls(), 4);

    tokio::time::advance(SECOND / 4).await;
    call(&mut service, answer()).await.unwrap();
    call(&mut service, answer()).await.unwrap_err();
    tokio::time::advance(SECOND * 10).await;
    for _ in 0..4 {
        call(&mut service, answer()).await.unwrap();
    }
    call(&mut service, answer()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_the_readiness_of_the_inner_service() {
    let (probe, watch) = probe(1);
    let mut service = RateLimiterLayer::new(1, SECOND).layer(probe);
    call(&mut service, answer()).await.unwrap();
    call(&mut service, answer()).await.unwrap_err();
    assert_eq!(watch.in_use(), 1);
    tokio::time::advance(SECOND).await;
    call(&mut service, answer()).await.unwrap();
    assert_eq!((watch.calls(), watch.in_use()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_layer_applied_twice_or_cloned_is_one_limit() {
    let (probe, _) = probe(8);
    let layer = RateLimiterLayer::new(4, SECOND);
    let mut first = layer.layer(probe.clone());
    let mut second = layer.clone().layer(probe);
    let mut third = second.clone();
    call(&mut first, answer()).await.unwrap();
    call(&mut second, answer()).await.unwrap();
    call(&mut third, answer()).await.unwrap();
    call(&mut first, answer()).await.unwrap();
    call(&mut second, answer()).await.unwrap_err();
    call(&mut third, answer()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_a_quota_and_those_without_one_share() {
    let (probe, _) = probe(8);
    let layer = RateLimiterLayer::new(1, SECOND).per_tenant();
    let mut service = layer.layer(probe);
    for tenant in ["a", "b", "c"] {
        call(&mut service, Request::by(tenant, Act::Answer)).await.unwrap();
        call(&mut service, Request::by(tenant, Act::Answer)).await.unwrap_err();
    }
    call(&mut service, answer()).await.unwrap();
    call(&mut service, answer()).await.unwrap_err();
    assert_eq!(layer.snapshot().keys, 3);
    tokio::time::advance(SECOND).await;
    call(&mut service, Request::by("a", Act::Answer)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn some_tenants_have_quotas_of_another_size() {
    let (probe, _) = probe(8);
    let layer = RateLimiterLayer::new(2, SECOND).per_tenant().limit_for("a", 4, SECOND).limit_for("b", 1, SECOND * 10);
    // One limit for all services of the layer and of its clones.
    let mut services = [layer.layer(probe.clone()), layer.clone().layer(probe)];
    for (tenant, calls, wait) in [("a", 4, SECOND / 4), ("b", 1, SECOND * 10), ("c", 2, SECOND / 2)] {
        for number in 0..calls {
            call(&mut services[number % 2], Request::by(tenant, Act::Answer)).await.unwrap();
        }
        for service in &mut services {
            let error = call(service, Request::by(tenant, Act::Answer)).await.unwrap_err();
            assert_eq!(error, RateLimitError::Limited { retry_after: wait }, "{tenant}");
        }
    }
    assert_eq!(layer.snapshot().keys, 1, "those that are configured are not counted");
    call(&mut services[0], answer()).await.unwrap();
    tokio::time::advance(SECOND).await;
    call(&mut services[0], Request::by("a", Act::Answer)).await.unwrap();
    call(&mut services[0], Request::by("b", Act::Answer)).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn whoever_fills_the_memory_for_keys_takes_no_limit_of_its_own_away() {
    let (probe, _) = probe(8);
    let layer = RateLimiterLayer::new(1, SECOND * 60).per_tenant().limit_for("a", 2, SECOND * 60).max_keys(2);
    let mut service = layer.layer(probe);
    for number in 0..100 {
        // The first two have a quota each, the third what is shared, and the others nothing.
        let result = call(&mut service, Request::by(&format!("invented {number}"), Act::Answer)).await;
        assert_eq!(result.is_ok(), number < 3, "{number}");
    }
    for _ in 0..2 {
        call(&mut service, Request::by("a", Act::Answer)).await.unwrap();
    }
    call(&mut service, Request::by("a", Act::Answer)).await.unwrap_err();
    assert_eq!(layer.snapshot().keys, 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_limit_for_a_key_counts_and_configuring_begins_anew() {
    let (probe, _) = probe(8);
    let first = RateLimiterLayer::new(1, SECOND).per_tenant().limit_for("a", 1, SECOND);
    call(&mut first.layer(probe.clone()), Request::by("a", Act::Answer)).await.unwrap();
    let layer = first.limit_for("a", 2, SECOND);
    let mut service = layer.layer(probe);
    for _ in 0..2 {
        call(&mut service, Request::by("a", Act::Answer)).await.unwrap();
    }
    call(&mut service, Request::by("a", Act::Answer)).await.unwrap_err();
    assert_eq!(layer.clone().try_limit_for("a", 0, SECOND).unwrap_err(), InvalidQuota::NoCalls);
    std::panic::catch_unwind(|| RateLimiterLayer::new(1, SECOND).per_tenant().limit_for("a", 1, Duration::ZERO))
        .unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_new_keys_share_the_quota_of_those_without() {
    let (probe, _) = probe(8);
    let by_operation = |request: &Request| Some(request.operation.clone());
    let layer = RateLimiterLayer::new(1, SECOND).per_key(by_operation).max_keys(2);
    let mut service = layer.layer(probe);
    for known in ["a", "b"] {
        call(&mut service, Request::of(known, Act::Answer)).await.unwrap();
    }
    call(&mut service, Request::of("c", Act::Answer)).await.unwrap();
    call(&mut service, Request::of("d", Act::Answer)).await.unwrap_err();
    assert_eq!(layer.snapshot().keys, 2);
    // Those that are known are untouched by it, and those whose quota is full again make room.
    tokio::time::advance(SECOND * 3).await;
    call(&mut service, Request::of("e", Act::Answer)).await.unwrap();
    call(&mut service, Request::of("f", Act::Answer)).await.unwrap();
    assert_eq!(layer.snapshot().keys, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_that_nobody_uses_are_forgotten() {
    let (probe, _) = probe(8);
    let layer = RateLimiterLayer::new(1000, SECOND).per_tenant();
    let mut service = layer.layer(probe);
    let mut most = 0;
    for call_number in 0..20_000 {
        call(&mut service, Request::by(&format!("tenant {call_number}"), Act::Answer)).await.unwrap();
        most = most.max(layer.snapshot().keys);
        tokio::time::advance(Duration::from_millis(2)).await;
    }
    assert!(most < 3000, "{most} keys were kept");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_served_when_its_token_comes() {
    let (probe, watch) = probe(1);
    let layer = RateLimiterLayer::new(1, SECOND).wait(SECOND * 5, 2);
    let mut service = layer.layer(probe);
    let begun = Instant::now();
    call(&mut service, answer()).await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 0);

    let waiting = service.ready().await.unwrap().call(answer());
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (0, 1), "it holds no place while it waits");
    waiting.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().waiting), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_wait_and_none_for_longer_than_it_may() {
    let (probe, watch) = probe(8);
    let layer = RateLimiterLayer::new(1, SECOND).wait(SECOND * 3, 5);
    let mut service = layer.layer(probe);
    call(&mut service, answer()).await.unwrap();
    let begun = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(service.ready().await.unwrap().call(answer()));
    }
    let refused = call(&mut service, answer()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RateLimited);
    assert_eq!(layer.snapshot().waiting, 5);

    // A token a second, and nobody waits for longer than three: two of the five are told so.
    let results = waiting.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "{results:?}");
    assert!(begun.elapsed() <= SECOND * 3 + SECOND / 100);
    // The call that was refused at once left its place to the next.
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().waiting), (4, 1, 0));
    drop(service);
    assert_eq!(watch.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_would_wait_too_long_is_refused_at_once() {
    let (probe, _) = probe(1);
    let layer = RateLimiterLayer::new(1, SECOND * 10).wait(SECOND, 2);
    let mut service = layer.layer(probe);
    call(&mut service, answer()).await.unwrap();
    let begun = Instant::now();
    let error = call(&mut service, answer()).await.unwrap_err();
    assert_eq!(error, RateLimitError::Limited { retry_after: SECOND * 10 });
    assert_eq!((begun.elapsed(), layer.snapshot().waiting), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_dropped_takes_no_token_and_keeps_no_place() {
    let (probe, watch) = probe(1);
    let layer = RateLimiterLayer::new(1, SECOND).wait(SECOND * 5, 1);
    let mut service = layer.layer(probe);
    call(&mut service, answer()).await.unwrap();
    let mut dropped = Box::pin(service.ready().await.unwrap().call(answer()));
    let (_wakes, waker) = Wakes::new();
    assert!(dropped.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    drop(dropped);
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (0, 0));
    tokio::time::advance(SECOND).await;
    let begun = Instant::now();
    call(&mut service, answer()).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_waits_for_readiness_of_its_own() {
    let (probe, watch) = probe(1);
    let layer = RateLimiterLayer::new(1, SECOND).wait(SECOND * 5, 1);
    let mut service = layer.layer(probe.clone());
    call(&mut service, answer()).await.unwrap();
    let waiting = tokio::spawn(service.ready().await.unwrap().call(answer()));
    // Someone else takes the one place for longer than the token takes to come.
    let busy = tokio::spawn(probe.clone().oneshot(Request::new(Act::Take(SECOND * 3))));
    let begun = Instant::now();
    waiting.await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    busy.await.unwrap().unwrap();
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (0, 0));

    // And where readiness fails meanwhile, that is its answer.
    call(&mut service, answer()).await.unwrap();
    let failed = service.ready().await.unwrap().call(answer());
    watch.fail_readiness(ErrorKind::Unavailable);
    assert_eq!(failed.await.unwrap_err(), RateLimitError::Inner(ProbeError(ErrorKind::Unavailable)));
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_burst_can_be_set_apart_from_the_rate() {
    let (probe, _) = probe(1);
    let mut service = RateLimiterLayer::new(10, SECOND).burst(NonZeroU32::MIN).layer(probe);
    for _ in 0..3 {
        call(&mut service, answer()).await.unwrap();
        let error = call(&mut service, answer()).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(SECOND / 10));
        tokio::time::advance(SECOND / 10).await;
    }
}

#[test]
fn quotas_that_cannot_be_kept_are_errors() {
    let century = Duration::from_secs(101 * 365 * 86_400);
    for (calls, period, expected) in [
        (0, SECOND, InvalidQuota::NoCalls),
        (1, Duration::ZERO, InvalidQuota::NoPeriod),
        (1, century, InvalidQuota::PeriodTooLong),
        (1, Duration::MAX, InvalidQuota::PeriodTooLong),
    ] {
        assert_eq!(RateLimiterLayer::try_new(calls, period).unwrap_err(), expected);
    }
    assert!(RateLimiterLayer::try_new(u32::MAX, Duration::from_nanos(1)).is_ok());
    std::panic::catch_unwind(|| RateLimiterLayer::new(0, SECOND)).unwrap_err();
}
