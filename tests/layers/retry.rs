use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{CircuitBreakerLayer, RetryLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerConfig;
use tower_kernels::middleware::retry::Budget;
use tower_kernels::request::{RequestContext, ResponseContext};

use crate::support::probe::{Act, Request, probe};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Fails a number of times, which clones share, and then succeeds.
#[derive(Clone)]
struct Failing {
    script: Arc<Mutex<Script>>,
    ready: bool,
}

#[derive(Default)]
struct Script {
    failures: Vec<Failure>,
    calls: Vec<Instant>,
    unready: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("told to fail")]
struct Failure {
    kind: ErrorKind,
    retry_after: Option<Duration>,
}

const DOWN: Failure = Failure { kind: ErrorKind::Unavailable, retry_after: None };

impl Classify for Failure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

#[derive(Debug)]
struct Done;
impl ResponseContext for Done {}

/// A request that counts its clones.
#[derive(Debug)]
struct Counted {
    clones: Arc<Mutex<usize>>,
    deadline: Option<std::time::Instant>,
    once: bool,
}

impl Counted {
    fn new(once: bool) -> (Self, Arc<Mutex<usize>>) {
        let clones = Arc::<Mutex<usize>>::default();
        (Self { clones: Arc::clone(&clones), deadline: None, once }, clones)
    }

    fn due(deadline: Duration) -> Self {
        Self { deadline: Some((Instant::now() + deadline).into_std()), ..Self::new(false).0 }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        *self.clones.lock().unwrap() += 1;
        Self { clones: Arc::clone(&self.clones), ..*self }
    }
}

impl RequestContext for Counted {
    fn deadline(&self) -> Option<std::time::Instant> {
        self.deadline
    }
}

impl Failing {
    fn new(failures: impl IntoIterator<Item = Failure>) -> (Self, Arc<Mutex<Script>>) {
        let mut failures: Vec<_> = failures.into_iter().collect();
        failures.reverse();
        let script = Arc::new(Mutex::new(Script { failures, ..Script::default() }));
        (Self { script: Arc::clone(&script), ready: false }, script)
    }
}

impl Service<Counted> for Failing {
    type Response = Done;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Done, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut script = self.script.lock().unwrap();
        if script.unready > 0 && !script.calls.is_empty() {
            script.unready -= 1;
            return Poll::Ready(Err(DOWN));
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Counted) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being polled ready");
        let mut script = self.script.lock().unwrap();
        script.calls.push(Instant::now());
        let result = script.failures.pop().map_or(Ok(Done), Err);
        Box::pin(std::future::ready(result))
    }
}

fn always() -> RetryLayer<impl Fn(&Counted) -> bool> {
    RetryLayer::new(|request: &Counted| !request.once)
}

async fn call<S: Service<Counted>>(service: &mut S, request: Counted) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_not_seen_by_the_caller() {
    let (inner, script) = Failing::new([DOWN, Failure { kind: ErrorKind::Overloaded, ..DOWN }]);
    let layer = always();
    let (request, clones) = Counted::new(false);
    call(&mut layer.layer(inner), request).await.unwrap();
    assert_eq!(script.lock().unwrap().calls.len(), 3);
    assert_eq!((layer.snapshot().retries, layer.snapshot().waiting), (2, 0));
    // One for the retries and one for the second attempt; the third needs none.
    assert_eq!(*clones.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_last_attempt_is_returned() {
    let last = Failure { retry_after: Some(MILLI * 3), ..DOWN };
    let (inner, script) = Failing::new([DOWN, DOWN, last, DOWN]);
    let error = call(&mut always().layer(inner), Counted::new(false).0).await.unwrap_err();
    assert_eq!(error, last);
    assert_eq!(script.lock().unwrap().calls.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn permanent_failures_and_requests_that_must_not_run_twice_are_not_retried() {
    for kind in ErrorKind::ALL {
        if matches!(kind, ErrorKind::Unavailable | ErrorKind::Overloaded) {
            continue;
        }
        let (inner, script) = Failing::new([Failure { kind, ..DOWN }]);
        assert_eq!(call(&mut always().layer(inner), Counted::new(false).0).await.unwrap_err().kind, kind);
        assert_eq!(script.lock().unwrap().calls.len(), 1);
    }
    let (inner, script) = Failing::new([DOWN]);
    let (request, clones) = Counted::new(true);
    assert_eq!(call(&mut always().layer(inner), request).await.unwrap_err(), DOWN);
    assert_eq!((script.lock().unwrap().calls.len(), *clones.lock().unwrap()), (1, 0));

    let (inner, _) = Failing::new([Failure { kind: ErrorKind::Internal, ..DOWN }]);
    call(&mut always().on([ErrorKind::Internal]).layer(inner), Counted::new(false).0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_backoff_is_random_and_doubles_up_to_the_maximum() {
    let mut waits = vec![Vec::new(); 5];
    for _ in 0..200 {
        let (inner, script) = Failing::new([DOWN; 5]);
        let layer = always().max_attempts(6).backoff(MILLI * 100, MILLI * 400);
        call(&mut layer.layer(inner), Counted::new(false).0).await.unwrap();
        let calls = &script.lock().unwrap().calls;
        for (wait, pair) in waits.iter_mut().zip(calls.windows(2)) {
            wait.push(pair[1] - pair[0]);
        }
    }
    for (waits, most) in waits.iter().zip([100, 200, 400, 400, 400]) {
        // Timers are a millisecond late at most.
        let (least, longest) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
        assert!(longest <= MILLI * (most + 1) && longest > MILLI * most * 8 / 10, "{longest:?} of {most}");
        assert!(least < MILLI * most * 2 / 10, "{least:?} of {most}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_retry_after_of_the_error_unless_it_is_too_long() {
    let begun = Instant::now();
    let (inner, _) = Failing::new([Failure { retry_after: Some(MILLI * 700), ..DOWN }]);
    call(&mut always().layer(inner), Counted::new(false).0).await.unwrap();
    assert!((MILLI * 700..=MILLI * 711).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let (inner, script) = Failing::new([Failure { retry_after: Some(SECOND * 2), ..DOWN }]);
    call(&mut always().layer(inner), Counted::new(false).0).await.unwrap_err();
    assert_eq!(script.lock().unwrap().calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    let begun = Instant::now();
    let asks = Failure { retry_after: Some(MILLI * 500), ..DOWN };
    let (inner, script) = Failing::new([asks, asks]);
    let layer = always();
    assert_eq!(call(&mut layer.layer(inner), Counted::due(MILLI * 700)).await.unwrap_err(), asks);
    assert_eq!(script.lock().unwrap().calls.len(), 2);
    assert_eq!((layer.snapshot().deadline_exceeded, layer.snapshot().retries), (1, 1));
    // It fails at once, not at the deadline.
    assert!(begun.elapsed() < MILLI * 520, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_readiness_of_its_own_up_to_the_deadline() {
    let (inner, script) = Failing::new([DOWN]);
    let limited = ConcurrencyLimit::new(inner, 1);
    let layer = always();
    let mut service = layer.layer(limited.clone());
    let budget = Budget::new(0.0, 1);
    let layer = layer.budget(budget.clone());
    let mut bounded = layer.layer(limited.clone());

    // Another call has the permit while this one waits for its second attempt.
    let mut other = limited.clone();
    let mut answer = tokio_test::task::spawn(service.ready().await.unwrap().call(Counted::new(false).0));
    assert!(answer.poll().is_pending());
    other.ready().await.unwrap();
    timeout(SECOND, &mut answer).await.unwrap_err();
    drop(answer);
    assert_eq!(script.lock().unwrap().calls.len(), 1);
    drop(other);

    script.lock().unwrap().failures.push(DOWN);
    let begun = Instant::now();
    let mut answer = tokio_test::task::spawn(bounded.ready().await.unwrap().call(Counted::due(SECOND)));
    assert!(answer.poll().is_pending());
    let mut other = limited.clone();
    other.ready().await.unwrap();
    assert_eq!(answer.await.unwrap_err(), DOWN);
    assert_eq!(begun.elapsed(), SECOND);
    assert_eq!((layer.snapshot().deadline_exceeded, layer.snapshot().retries, layer.snapshot().waiting), (1, 0, 0));
    assert_eq!(budget.available(), 1, "the attempt was not made");
}

#[tokio::test(start_paused = true)]
async fn failed_readiness_is_a_failed_attempt() {
    let (inner, script) = Failing::new([DOWN]);
    script.lock().unwrap().unready = 1;
    let layer = always();
    call(&mut layer.layer(inner), Counted::new(false).0).await.unwrap();
    assert_eq!((script.lock().unwrap().calls.len(), layer.snapshot().retries), (2, 2));

    let (inner, script) = Failing::new([DOWN]);
    script.lock().unwrap().unready = 9;
    call(&mut always().layer(inner), Counted::new(false).0).await.unwrap_err();
    let script = script.lock().unwrap();
    assert_eq!((script.calls.len(), script.unready), (1, 7));
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_attempts_of_all_clones() {
    let (inner, script) = Failing::new([DOWN; 1000]);
    let layer = always().budget(Budget::new(0.1, 5));
    let first = layer.layer(inner.clone());
    let second = layer.clone().layer(inner);
    for _ in 0..50 {
        for mut service in [first.clone(), second.clone()] {
            call(&mut service, Counted::new(false).0).await.unwrap_err();
        }
    }
    // 5 attempts at once and a tenth of the 100 calls; a full bucket does not grow.
    let retries = layer.snapshot().retries;
    assert!((13..=15).contains(&retries), "{retries}");
    assert_eq!(script.lock().unwrap().calls.len() as u64, 100 + retries);
    assert!(layer.snapshot().budget_exhausted >= 85);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_a_rejection_is_retried_and_at_last_returned() {
    let (probe, watch) = probe(1);
    let layer = RetryLayer::new(|_: &Request| true);
    let mut service = layer.layer(probe);
    let response =
        service.ready().await.unwrap().call(Request::new(Act::Refuse(ErrorKind::Unavailable))).await.unwrap();
    assert_eq!((response.failure(), watch.calls(), watch.in_use()), (Some(ErrorKind::Unavailable), 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_holds_no_permit_and_a_cancelled_one_returns_its_token() {
    let (probe, watch) = probe(1);
    let budget = Budget::new(0.0, 1);
    let layer = RetryLayer::new(|_: &Request| true).backoff(SECOND, SECOND).budget(budget.clone());
    let mut service = layer.layer(probe);
    let mut answer =
        tokio_test::task::spawn(service.ready().await.unwrap().call(Request::new(Act::Fail(ErrorKind::Overloaded))));
    // The retry-after of the error is longer than the maximum, so the call is not retried.
    assert!(answer.poll().is_ready());
    drop(answer);

    let (inner, _) = Failing::new([DOWN]);
    let layer = always().backoff(SECOND, SECOND).budget(budget.clone());
    let mut service = layer.layer(inner);
    let mut answer = tokio_test::task::spawn(service.ready().await.unwrap().call(Counted::new(false).0));
    assert!(answer.poll().is_pending());
    assert_eq!((layer.snapshot().waiting, budget.available(), watch.in_use()), (1, 0, 0));
    drop(answer);
    assert_eq!((layer.snapshot().waiting, budget.available()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn over_an_open_circuit_it_waits_for_the_probe() {
    let (inner, script) = Failing::new([DOWN]);
    let breaker = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        initial_open_time: MILLI * 200,
        max_open_time: SECOND,
        ..Default::default()
    });
    let mut service = always().layer(breaker.layer(inner));
    call(&mut service, Counted::new(false).0).await.unwrap();
    let calls = &script.lock().unwrap().calls;
    assert_eq!(calls.len(), 2);
    assert!(calls[1] - calls[0] >= MILLI * 150);
}
