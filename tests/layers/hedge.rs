use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::HedgeLayer;
use tower_kernels::middleware::hedge::Budget;

use crate::support::probe::{Act, Probe, ProbeError, Request, Response, Watch, probe};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Follows a script call by call, and then succeeds.
#[derive(Clone, Debug)]
struct Scripted {
    probe: Probe,
    acts: Arc<std::sync::Mutex<Vec<Act>>>,
}

fn scripted(places: usize, acts: impl IntoIterator<Item = Act>) -> (Scripted, Watch) {
    let (probe, watch) = probe(places);
    let mut acts: Vec<_> = acts.into_iter().collect();
    acts.reverse();
    (Scripted { probe, acts: Arc::new(acts.into()) }, watch)
}

impl Service<Request> for Scripted {
    type Response = Response;
    type Error = ProbeError;
    type Future = crate::support::probe::ProbeFuture;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), ProbeError>> {
        self.probe.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let act = self.acts.lock().unwrap().pop().unwrap_or(Act::Answer);
        self.probe.call(Request { act, ..request })
    }
}

fn after(delay: Duration) -> HedgeLayer<impl Fn(&Request) -> bool> {
    HedgeLayer::new(|request: &Request| request.tenant.is_none()).after(delay)
}

async fn call<S: Service<Request>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(Request::new(Act::Answer)).await
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_gets_a_second_attempt_and_the_loser_is_dropped() {
    let (inner, watch) = scripted(2, [Act::Never]);
    let layer = after(SECOND);
    let mut service = layer.layer(inner);
    let begun = Instant::now();
    call(&mut service).await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 1000);
    assert_eq!((watch.calls(), watch.in_use()), (2, 0));
    assert_eq!((layer.snapshot().hedged, layer.snapshot().won), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_may_still_win() {
    let (inner, watch) = scripted(2, [Act::Take(SECOND * 2), Act::Take(SECOND * 3)]);
    let layer = after(SECOND);
    let begun = Instant::now();
    call(&mut layer.layer(inner)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!((watch.calls(), watch.in_use()), (2, 0));
    assert_eq!((layer.snapshot().hedged, layer.snapshot().won), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn fast_calls_and_requests_that_must_not_run_twice_are_not_hedged() {
    let (inner, watch) = scripted(2, [Act::Answer, Act::Take(SECOND / 2), Act::Take(SECOND * 5)]);
    let layer = after(SECOND);
    let mut service = layer.layer(inner);
    call(&mut service).await.unwrap();
    call(&mut service).await.unwrap();
    service.ready().await.unwrap().call(Request::by("acme", Act::Answer)).await.unwrap();
    assert_eq!((watch.calls(), layer.snapshot().hedged), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_leaves_the_call_to_the_other() {
    let unavailable = Act::Fail(ErrorKind::Unavailable);
    // A failure before the second attempt is returned.
    let (inner, watch) = scripted(2, [unavailable]);
    call(&mut after(SECOND).layer(inner)).await.unwrap_err();
    assert_eq!(watch.calls(), 1);
    // The second attempt fails, with an error or a rejection.
    for act in [unavailable, Act::Refuse(ErrorKind::Unavailable)] {
        let (inner, watch) = scripted(2, [Act::Take(SECOND * 2), act]);
        let layer = after(SECOND);
        call(&mut layer.layer(inner)).await.unwrap();
        assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().won), (2, 0, 0));
    }
    // While the first attempt goes on, a failure of the second is not returned.
    let (inner, _) = scripted(2, [Act::Never, unavailable]);
    let mut answer = tokio_test::task::spawn(async move { call(&mut after(SECOND).layer(inner)).await });
    assert!(answer.poll().is_pending());
    advance(SECOND * 2).await;
    assert!(answer.poll().is_pending(), "the first attempt goes on");
}

#[tokio::test(start_paused = true)]
async fn if_both_attempts_fail_the_later_failure_is_returned() {
    use ErrorKind::{Internal, Unavailable};
    // The first attempt takes 2 s; this is the time of the second, which begins after 1 s.
    for (second, took, kind) in [(SECOND / 2, SECOND * 2, Internal), (SECOND * 3, SECOND * 4, Unavailable)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let inner = service_fn(move |_: Request| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                tokio::time::sleep(if first { SECOND * 2 } else { second }).await;
                Err::<Response, _>(ProbeError(if first { Internal } else { Unavailable }))
            }
        });
        let layer = after(SECOND);
        let begun = Instant::now();
        let error = call(&mut layer.layer(inner)).await.unwrap_err();
        assert_eq!((begun.elapsed().as_millis(), error), (took.as_millis(), ProbeError(kind)));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!((layer.snapshot().hedged, layer.snapshot().won), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_waits_for_readiness_of_its_own() {
    let (inner, watch) = scripted(1, [Act::Take(SECOND * 3)]);
    let budget = Budget::new(0.0, 1);
    let layer = after(SECOND).budget(budget.clone());
    let begun = Instant::now();
    // The first attempt has the only permit, so the second is never made.
    call(&mut layer.layer(inner)).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().hedged), (1, 0, 0));
    assert_eq!(budget.available(), 1, "its token is returned");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_second_attempts() {
    let (inner, watch) = scripted(2, [Act::Take(SECOND * 2); 1000]);
    let layer = after(SECOND).budget(Budget::new(0.05, 2));
    let mut service = layer.layer(inner);
    for _ in 0..100 {
        call(&mut service).await.unwrap();
    }
    let hedged = layer.snapshot().hedged;
    assert!((5..=7).contains(&hedged), "{hedged}");
    assert_eq!(watch.calls() as u64, 100 + hedged);
    assert_eq!(layer.snapshot().budget_exhausted, 100 - hedged);
}

#[tokio::test(start_paused = true)]
async fn no_second_attempt_begins_after_the_deadline() {
    let (inner, watch) = scripted(2, [Act::Take(SECOND * 2)]);
    let mut service = after(SECOND).layer(inner);
    let deadline = Some((Instant::now() + SECOND).into_std());
    service.ready().await.unwrap().call(Request { deadline, ..Request::new(Act::Answer) }).await.unwrap();
    assert_eq!(watch.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_learned_for_each_operation_and_hedging_does_not_shorten_it() {
    let (probe, _) = probe(4);
    let layer = HedgeLayer::new(|_: &Request| true).after_quantile(0.9).budget(Budget::new(1.0, 100));
    let mut service = layer.layer(probe);
    let mut take = async |operation: &str, millis: u32| {
        let request = Request::of(operation, Act::Take(MILLI * millis));
        service.ready().await.unwrap().call(request).await.unwrap();
    };
    assert_eq!(layer.delay("quick"), None);
    for i in 0..400 {
        take("quick", 5 + i % 5).await;
        take("slow", if i % 20 == 0 { 2000 } else { 500 }).await;
    }
    let (quick, slow) = (layer.delay("quick").unwrap(), layer.delay("slow").unwrap());
    assert!((MILLI * 8..=MILLI * 12).contains(&quick), "{quick:?}");
    assert!((MILLI * 500..=MILLI * 600).contains(&slow), "{slow:?}");
    // Every twentieth call was hedged, and its second attempt was as slow.
    assert!(layer.snapshot().hedged > 10, "{:?}", layer.snapshot());
    assert!(layer.snapshot().hedged < 100, "{:?}", layer.snapshot());
}
