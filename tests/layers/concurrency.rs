use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::ConcurrencyLayer;
use tower_kernels::middleware::concurrency::fair::{FairError, FairLayer};
use tower_kernels::middleware::concurrency::{Aimd, Algorithm, Gradient, Outcome, Sample};

use crate::support::probe::{Act, ProbeError, Request, probe};
use crate::support::wakes::Wakes;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn answer() -> Request {
    Request::new(Act::Answer)
}

fn take(time: Duration) -> Request {
    Request::new(Act::Take(time))
}

/// The permits and the waiting calls of a tenant.
fn tenant(layer: &FairLayer, name: &str) -> (usize, usize) {
    let snapshot = layer.tenant_snapshot(Some(name));
    (snapshot.in_flight, snapshot.waiting)
}

fn is_ready<S: Service<Request>>(service: &mut S, waker: &Waker) -> bool {
    match service.poll_ready(&mut Context::from_waker(waker)) {
        Poll::Ready(ready) => ready.is_ok(),
        Poll::Pending => false,
    }
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_and_of_its_clones_share_the_permits() {
    let (probe, _) = probe(8);
    let layer = ConcurrencyLayer::new(2);
    let mut services = [layer.layer(probe.clone()), layer.clone().layer(probe.clone()), layer.layer(probe)];
    assert!(is_ready(&mut services[0], Waker::noop()) && is_ready(&mut services[1], Waker::noop()));
    assert!(!is_ready(&mut services[2], Waker::noop()));
    assert_eq!((layer.snapshot().limit, layer.snapshot().in_flight, layer.snapshot().waiting), (2, 2, 1));
    services[0].call(answer()).await.unwrap();
    assert!(is_ready(&mut services[2], Waker::noop()));
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_and_one_permit_wakes_one() {
    let (probe, _) = probe(8);
    let layer = ConcurrencyLayer::new(1);
    let mut holder = layer.layer(probe);
    holder.ready().await.unwrap();
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let (wakes, waker) = Wakes::new();
            let mut service = holder.clone();
            assert!(!is_ready(&mut service, &waker));
            (service, wakes)
        })
        .collect();
    // One in the middle is cancelled.
    waiting.remove(7);
    assert_eq!(layer.snapshot().waiting, 19);
    drop(holder);
    for number in 0..waiting.len() {
        let woken: Vec<_> = waiting.iter().map(|(_, wakes)| wakes.count()).collect();
        let expected: Vec<_> = (0..waiting.len()).map(|other| usize::from(other <= number)).collect();
        assert_eq!(woken, expected);
        // A new service does not get a permit before those that wait, nor does one further behind.
        assert!(!is_ready(&mut waiting[0].0.clone(), Waker::noop()));
        if let Some((later, _)) = waiting.get_mut(number + 1) {
            assert!(!is_ready(later, Waker::noop()));
            let (wakes, waker) = Wakes::new();
            assert!(!is_ready(later, &waker));
            waiting[number + 1].1 = wakes;
        }
        let (service, _) = &mut waiting[number];
        assert!(is_ready(service, Waker::noop()));
        drop(service.call(answer()));
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_for_a_cancelled_waiter_goes_to_the_next() {
    let (probe, _) = probe(8);
    let layer = ConcurrencyLayer::new(1);
    let mut holder = layer.layer(probe);
    holder.ready().await.unwrap();
    let (mut first, mut second) = (holder.clone(), holder.clone());
    let (wakes, waker) = Wakes::new();
    assert!(!is_ready(&mut first, Waker::noop()) && !is_ready(&mut second, &waker));
    drop(holder);
    assert_eq!(wakes.count(), 0);
    // It has been granted the permit, and is not polled.
    drop(first);
    assert_eq!(wakes.count(), 1);
    assert!(is_ready(&mut second, &waker));
}

#[tokio::test(start_paused = true)]
async fn the_limit_changes_while_calls_wait() {
    let (probe, watch) = probe(16);
    let layer = ConcurrencyLayer::new(1);
    let service = layer.layer(probe);
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(service.clone().oneshot(take(SECOND)))).collect();
    sleep(SECOND / 2).await;
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 1, 7));
    layer.set_limit(5);
    sleep(MILLI).await;
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (5, 5, 3));
    // A smaller one takes effect as calls end: the first leaves at 1 s, the other four at 1.5 s.
    layer.set_limit(2);
    assert_eq!(layer.snapshot().in_flight, 5);
    sleep(SECOND * 3 / 4).await;
    assert_eq!((layer.snapshot().limit, layer.snapshot().in_flight, layer.snapshot().waiting), (2, 4, 3));
    sleep(SECOND / 2).await;
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (2, 1));
    // None at all, and on again.
    layer.set_limit(0);
    sleep(SECOND * 5).await;
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 1));
    layer.set_limit(1);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, watch.calls()), (0, 0, 8));
}

#[tokio::test(start_paused = true)]
async fn a_permit_reserved_for_a_service_whose_readiness_fails_is_given_back() {
    let (probe, watch) = probe(1);
    let layer = ConcurrencyLayer::new(1);
    let mut service = layer.layer(probe);
    watch.fail_readiness(ErrorKind::Unavailable);
    assert_eq!(service.ready().await.unwrap_err(), ProbeError(ErrorKind::Unavailable));
    assert_eq!(layer.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_permit_back() {
    let (probe, _) = probe(2);
    let layer = ConcurrencyLayer::new(1);
    let service = layer.layer(probe);
    tokio::spawn(service.clone().oneshot(Request::new(Act::Panic))).await.unwrap_err();
    assert_eq!(layer.snapshot().in_flight, 0);
    service.oneshot(answer()).await.unwrap();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "without `poll_ready`")]
async fn a_call_without_readiness_panics() {
    let (probe, _) = probe(1);
    drop(ConcurrencyLayer::new(1).layer(probe).call(answer()));
}

#[tokio::test]
async fn a_burst_that_uses_up_the_budget_of_its_task_finds_all_permits() {
    let layer = ConcurrencyLayer::new(10_000);
    let idle = tower::service_fn(|_: Request| std::future::ready(Ok::<_, ProbeError>(())));
    let service = layer.layer(idle);
    let full = (0..10_000)
        .filter(|_| {
            let mut service = service.clone();
            // Uses up what there is of the budget; from the 128th on there is none.
            let _ = Box::pin(tokio::task::coop::consume_budget()).as_mut().now_or_never();
            !is_ready(&mut service, Waker::noop())
        })
        .count();
    assert!(!tokio::task::coop::has_budget_remaining());
    assert_eq!((full, layer.snapshot().waiting), (0, 0));
}

/// A call that runs, until it ends or is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_and_all_calls_run_while_it_changes() {
    let layer = ConcurrencyLayer::new(4);
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let service = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        layer.layer(tower::service_fn(move |_: Request| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _running = Running(running);
                tokio::task::yield_now().await;
                Ok::<_, ProbeError>(())
            }
        }))
    };
    let calls: Vec<_> = (0..64)
        .map(|number| {
            let service = service.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    let call = service.clone().oneshot(answer());
                    if (number + round) % 7 == 0 {
                        // Leaves, maybe in the queue, maybe with a place.
                        tokio::select! { biased; _ = tokio::task::yield_now() => {} _ = call => {} }
                    } else {
                        call.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for limit in [1, 4, 2, 3, 1, 4].into_iter().cycle().take(300) {
        layer.set_limit(limit);
        tokio::task::yield_now().await;
    }
    for call in calls {
        tokio::time::timeout(SECOND * 60, call).await.expect("somebody was forgotten in the queue").unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)));
}

// What is learned.

fn at(origin: Instant, millis: u64) -> std::time::Instant {
    (origin + MILLI * millis as u32).into_std()
}

#[test]
fn aimd_adds_one_for_each_round_and_takes_a_tenth_once_for_each_overload() {
    let origin = Instant::now();
    let mut aimd = Aimd::new(10);
    let call = |begin, end, in_flight, outcome| Sample::new(at(origin, begin), at(origin, end), in_flight, outcome);
    for number in 0..11 {
        aimd.observe(&call(number, number + 5, 10, Outcome::Success));
    }
    assert_eq!(aimd.limit(), 11);
    // What is not used is not tried.
    for number in 0..100 {
        aimd.observe(&call(number, number + 5, 3, Outcome::Success));
    }
    assert_eq!(aimd.limit(), 11);
    // Ten calls that were under way together are one overload.
    for _ in 0..10 {
        aimd.observe(&call(100, 110, 11, Outcome::Overloaded));
    }
    assert_eq!(aimd.limit(), 9);
    aimd.observe(&call(120, 130, 9, Outcome::Overloaded));
    assert_eq!(aimd.limit(), 8);
    for round in 0..200 {
        aimd.observe(&call(200 + round * 20, 210 + round * 20, 9, Outcome::Overloaded));
    }
    assert_eq!(aimd.limit(), 1);
    let mut late = Aimd::new(10).latency_threshold(MILLI * 50);
    late.observe(&call(0, 50, 10, Outcome::Success));
    assert_eq!(late.limit(), 10);
    late.observe(&call(0, 51, 10, Outcome::Success));
    assert_eq!(late.limit(), 9);
}

#[test]
fn the_gradient_falls_with_the_latency_and_comes_back_with_it() {
    let origin = Instant::now();
    let mut now = 0;
    let mut windows = |gradient: &mut Gradient, windows: usize, took: u64, in_flight: usize| {
        for _ in 0..windows * 12 {
            now += 10;
            gradient.observe(&Sample::new(at(origin, now - took), at(origin, now), in_flight, Outcome::Success));
        }
    };
    let mut gradient = Gradient::new(20).range(2..=40);
    // Nothing is learnt of a limit that is not used.
    windows(&mut gradient, 10, 10, 5);
    assert_eq!(gradient.limit(), 20);
    windows(&mut gradient, 50, 10, 20);
    let grown = gradient.limit();
    assert!(grown > 30, "{grown}");
    windows(&mut gradient, 20, 100, 40);
    let fallen = gradient.limit();
    assert!(fallen < grown / 2, "{fallen} of {grown}");
    windows(&mut gradient, 60, 10, 40);
    assert!(gradient.limit() > fallen * 2, "{} after {fallen}", gradient.limit());
}

#[test]
fn empty_ranges_panic() {
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is rejected")]
    let empty = 5..=4;
    std::panic::catch_unwind(|| Aimd::new(4).range(empty)).unwrap_err();
    std::panic::catch_unwind(|| Gradient::new(4).range(0..=4)).unwrap_err();
    std::panic::catch_unwind(|| Aimd::new(4).backoff(1.0)).unwrap_err();
    std::panic::catch_unwind(|| Gradient::new(4).tolerance(0.5)).unwrap_err();
    assert_eq!((Aimd::new(0).limit(), Aimd::new(5000).limit()), (1, 5000));
}

#[tokio::test(start_paused = true)]
async fn errors_that_mean_overload_cut_the_limit_and_others_do_not() {
    for (kind, limit) in [
        (ErrorKind::Overloaded, 9),
        (ErrorKind::DeadlineExceeded, 9),
        (ErrorKind::Internal, 10),
        (ErrorKind::InvalidArgument, 10),
        (ErrorKind::RateLimited, 10),
        (ErrorKind::Unavailable, 10),
    ] {
        for act in [Act::Fail(kind), Act::Refuse(kind)] {
            let (probe, _) = probe(1);
            let layer = ConcurrencyLayer::adaptive(Aimd::new(10));
            let _ = layer.layer(probe).oneshot(Request::new(act)).await;
            assert_eq!(layer.snapshot().limit, limit, "{act:?}");
            assert_eq!(layer.with_algorithm(Aimd::limit), limit);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_its_deadline_is_a_sign_of_overload_and_one_before_is_not() {
    let (probe, _) = probe(1);
    let layer = ConcurrencyLayer::adaptive(Aimd::new(10));
    let service = layer.layer(probe);
    for (after, limit) in [(SECOND / 2, 10), (SECOND, 9)] {
        let mut request = Request::new(Act::Never);
        request.deadline = Some((Instant::now() + SECOND).into_std());
        tokio::time::timeout(after, service.clone().oneshot(request)).await.unwrap_err();
        assert_eq!((layer.snapshot().limit, layer.snapshot().in_flight), (limit, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn aimd_finds_the_capacity_of_a_service_that_rejects_calls() {
    // It rejects the ninth at a time.
    let inside = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |_: http::Request<()>| {
        let inside = Arc::clone(&inside);
        async move {
            let full = inside.fetch_add(1, Ordering::SeqCst) >= 8;
            if !full {
                sleep(MILLI * 10).await;
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            if full { Err(ProbeError(ErrorKind::Overloaded)) } else { Ok(http::Response::new(())) }
        }
    });
    let layer = ConcurrencyLayer::adaptive(Aimd::new(100));
    let service = layer.layer(service);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    let _ = service.clone().oneshot(http::Request::new(())).await;
                }
            })
        })
        .collect();
    sleep(MILLI * 300).await;
    let limit = layer.snapshot().limit;
    assert!((6..=10).contains(&limit), "{limit}");
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
}

// Tenants.

#[tokio::test(start_paused = true)]
async fn a_single_tenant_has_all_permits_and_shares_them_as_others_come() {
    let (probe, watch) = probe(16);
    let layer = ConcurrencyLayer::new(4).per_tenant(SECOND * 60, 1000);
    let service = layer.layer(probe);
    let calls = |tenant: &'static str, number: usize| {
        (0..number)
            .map(|_| tokio::spawn(service.clone().oneshot(Request::by(tenant, Act::Take(SECOND)))))
            .collect::<Vec<_>>()
    };
    let greedy = calls("greedy", 40);
    sleep(SECOND / 2).await;
    assert_eq!((tenant(&layer, "greedy"), layer.snapshot().in_flight, watch.in_use()), ((4, 36), 4, 4));
    // Nothing is taken from calls that run; once they end, each has its share.
    let modest = calls("modest", 10);
    sleep(SECOND / 4).await;
    assert_eq!((tenant(&layer, "greedy").0, tenant(&layer, "modest")), (4, (0, 10)));
    for _ in 0..3 {
        sleep(SECOND).await;
        assert_eq!((tenant(&layer, "greedy").0, tenant(&layer, "modest").0), (2, 2));
    }
    // A third that needs one place only leaves the rest to the two.
    let single = calls("single", 1);
    sleep(SECOND).await;
    assert_eq!(tenant(&layer, "single"), (1, 0));
    assert_eq!(tenant(&layer, "greedy").0 + tenant(&layer, "modest").0, 3);
    // Once the others have what they wanted, the first has all of it again.
    for call in modest.into_iter().chain(single) {
        call.await.unwrap().unwrap();
    }
    sleep(SECOND * 3 / 2).await;
    assert_eq!((tenant(&layer, "greedy").0, tenant(&layer, "modest")), (4, (0, 0)));
    for call in greedy {
        call.await.unwrap().unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, watch.in_use(), watch.calls()), (0, 0, 0, 51));
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_if_there_are_fewer_permits_than_tenants() {
    let (probe, _) = probe(4);
    let layer = ConcurrencyLayer::new(1).per_tenant(SECOND * 600, 1000);
    let service = layer.layer(probe);
    let begun = Instant::now();
    let call = |tenant: &str| tokio::spawn(service.clone().oneshot(Request::by(tenant, Act::Take(SECOND))));
    let _first: Vec<_> = (0..50).map(|_| call("first")).collect();
    sleep(SECOND / 2).await;
    let second: Vec<_> = (0..3).map(|_| call("second")).collect();
    for call in second {
        call.await.unwrap().unwrap();
    }
    // Every other place is the second's: it is done after 7 s, and not after 53.
    assert!(begun.elapsed() <= SECOND * 7, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_tenant_fills_the_queue() {
    let (probe, watch) = probe(8);
    let layer = ConcurrencyLayer::new(1).per_tenant(SECOND * 60, 10);
    let mut service = layer.layer(probe);
    let mut kept = Vec::new();
    let mut admitted = Vec::new();
    for tenant in ["first", "second", "third"] {
        let mut waiting = 0;
        for _ in 0..20 {
            let mut call = Box::pin(service.ready().await.unwrap().call(Request::by(tenant, Act::Never)));
            match call.as_mut().now_or_never() {
                None => waiting += 1,
                Some(result) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Overloaded);
                    assert!(matches!(error, FairError::Full { waiting } if waiting == layer.snapshot().waiting));
                    continue;
                }
            }
            kept.push(call);
        }
        admitted.push(waiting);
    }
    // The first has the place, and half of the room; there is room for the first call of each that comes.
    assert_eq!(admitted, [1 + 5, 3, 1]);
    // The service inside is reserved for the next call, which has not come; one call runs.
    assert_eq!((layer.snapshot().waiting, layer.snapshot().in_flight, watch.calls()), (9, 1, 1));
    drop(kept);
    assert_eq!((layer.snapshot().waiting, layer.snapshot().in_flight, tenant(&layer, "first")), (0, 0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_no_longer_than_it_may_or_than_its_deadline() {
    let (probe, watch) = probe(8);
    let layer = ConcurrencyLayer::new(1).per_tenant(SECOND * 3, 10);
    let service = layer.layer(probe);
    let holder = tokio::spawn(service.clone().oneshot(Request::new(Act::Never)));
    tokio::task::yield_now().await;
    for (deadline, expected) in [(None, 3), (Some(SECOND), 1), (Some(SECOND * 9), 3)] {
        let begun = Instant::now();
        let mut request = answer();
        request.deadline = deadline.map(|deadline| (begun + deadline).into_std());
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(matches!(error, FairError::TimedOut { waited } if waited.as_secs() == expected), "{error:?}");
        assert_eq!((begun.elapsed().as_secs(), layer.snapshot().waiting), (expected, 0));
    }
    holder.abort();
    let _ = holder.await;
    assert_eq!((layer.snapshot().in_flight, watch.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_waits_for_readiness_of_its_own() {
    let (probe, watch) = probe(1);
    let layer = ConcurrencyLayer::new(1).per_tenant(SECOND * 5, 4);
    let mut service = layer.layer(probe.clone());
    let running = tokio::spawn(service.ready().await.unwrap().call(take(SECOND)));
    // With one place inside, readiness comes when the first has ended; then somebody else is there.
    let mut waiting = layer.layer(tower::util::BoxCloneService::new(tower::service_fn({
        let probe = probe.clone();
        move |request| probe.clone().oneshot(request)
    })));
    let second = tokio::spawn(waiting.ready().await.unwrap().call(answer()));
    assert_eq!(layer.snapshot().waiting, 1);
    let begun = Instant::now();
    second.await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 1);
    running.await.unwrap().unwrap();
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, watch.calls()), (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_permit_for_a_dropped_call_goes_to_the_next_of_any_tenant() {
    let (probe, _) = probe(8);
    let layer = ConcurrencyLayer::new(1).per_tenant(SECOND * 5, 8);
    let mut service = layer.layer(probe);
    let first = service.ready().await.unwrap().call(Request::by("a", Act::Never));
    let mut second = Box::pin(service.ready().await.unwrap().call(Request::by("b", Act::Answer)));
    let mut third = Box::pin(service.ready().await.unwrap().call(Request::by("c", Act::Answer)));
    let (wakes, waker) = Wakes::new();
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    assert_eq!((wakes.count(), tenant(&layer, "b")), (0, (1, 0)));
    drop(second);
    assert_eq!(wakes.count(), 1);
    third.await.unwrap();
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_fair_limit_changes_too_and_can_be_learned() {
    let (probe, _) = probe(8);
    let layer = ConcurrencyLayer::new(0).per_tenant(SECOND * 5, 8);
    let mut service = layer.layer(probe.clone());
    let calls: Vec<_> = (0..3)
        .map(|_| {
            is_ready(&mut service, Waker::noop());
            tokio::spawn(service.call(take(SECOND)))
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 3));
    layer.set_limit(2);
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (2, 1));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let learned = ConcurrencyLayer::adaptive(Aimd::new(10)).per_tenant(SECOND, 8);
    let _ = learned.layer(probe).oneshot(Request::new(Act::Fail(ErrorKind::Overloaded))).await;
    assert_eq!((learned.snapshot().limit, learned.snapshot().in_flight), (9, 0));
}
