use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, advance};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{CircuitBreakerLayer, TimeoutLayer};
use tower_kernels::middleware::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerError, CircuitState};

use crate::support::logs::capture;
use crate::support::probe::{Act, Probe, ProbeError, Request, probe};
use crate::support::wakes::Wakes;
use crate::tracing::Notes;

const SECOND: Duration = Duration::from_secs(1);
const THREE: std::num::NonZeroU32 = std::num::NonZeroU32::new(3).unwrap();
const FAIL: Act = Act::Fail(ErrorKind::Unavailable);

async fn call<S: Service<Request>>(service: &mut S, act: Act) -> Result<S::Response, S::Error> {
    service.ready().await?.call(Request::new(act)).await
}

/// Opens at the first failure.
fn sensitive() -> CircuitBreakerLayer {
    CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: Some(1), ..Default::default() })
}

async fn rejected<S>(service: &mut S) -> Duration
where
    S: Service<Request, Error = CircuitBreakerError<ProbeError>>,
{
    match call(service, Act::Answer).await {
        Err(CircuitBreakerError::Open { retry_after }) => retry_after,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the call went through"),
    }
}

#[tokio::test(start_paused = true)]
async fn consecutive_failures_open_it_and_the_rejection_says_when_to_retry() {
    let (probe, watch) = probe(1);
    let layer =
        CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: Some(3), ..Default::default() });
    let mut service = layer.layer(probe);
    for act in [FAIL, FAIL, Act::Answer, FAIL, FAIL] {
        let _ = call(&mut service, act).await;
    }
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    call(&mut service, FAIL).await.unwrap_err();
    assert_eq!((layer.snapshot().state, layer.snapshot().opened), (CircuitState::Open, 1));

    let error = call(&mut service, Act::Answer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let retry_after = error.retry_after().unwrap();
    assert!((SECOND * 3 / 4..=SECOND).contains(&retry_after), "{retry_after:?}");
    assert_eq!((watch.calls(), layer.snapshot().rejected), (6, 1));

    advance(retry_after - Duration::from_millis(1)).await;
    assert_eq!(rejected(&mut service).await, Duration::from_millis(1));
    advance(Duration::from_millis(1)).await;
    call(&mut service, Act::Answer).await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_leaves_the_inner_readiness_for_the_next() {
    let (probe, watch) = probe(2);
    let layer = sensitive();
    let (mut first, mut second) = (layer.layer(probe.clone()), layer.layer(probe));
    first.ready().await.unwrap();
    call(&mut second, FAIL).await.unwrap_err();
    assert_eq!(watch.in_use(), 1);
    let rejection = first.call(Request::new(Act::Answer)).await.unwrap_err();
    assert!(matches!(rejection, CircuitBreakerError::Open { .. }));
    assert_eq!((watch.in_use(), watch.calls()), (1, 1));
    advance(SECOND).await;
    call(&mut first, Act::Answer).await.unwrap();
    assert_eq!((watch.in_use(), watch.calls()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_opens_it_once_there_are_enough_calls() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: None,
        failure_rate: Some(0.5),
        window: SECOND * 10,
        min_calls: 8,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    for _ in 0..3 {
        call(&mut service, FAIL).await.unwrap_err();
        call(&mut service, Act::Answer).await.unwrap();
    }
    call(&mut service, FAIL).await.unwrap_err();
    assert_eq!((layer.snapshot().calls, layer.snapshot().failures), (7, 4));
    assert_eq!(layer.snapshot().state, CircuitState::Closed);

    // All of these have left the window.
    advance(SECOND * 10).await;
    assert_eq!(layer.snapshot().calls, 0);
    for _ in 0..5 {
        call(&mut service, Act::Answer).await.unwrap();
    }
    for _ in 0..4 {
        call(&mut service, FAIL).await.unwrap_err();
        assert_eq!(layer.snapshot().state, CircuitState::Closed);
    }
    call(&mut service, FAIL).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_including_those_that_were_cancelled() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        slow_call_duration: Some(SECOND),
        slow_call_rate: 0.5,
        window: SECOND * 1000,
        min_calls: 4,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    call(&mut service, Act::Take(SECOND)).await.unwrap();
    call(&mut service, Act::Answer).await.unwrap();
    call(&mut service, Act::Take(SECOND * 2)).await.unwrap();
    assert_eq!((layer.snapshot().slow, layer.snapshot().state), (1, CircuitState::Closed));
    tokio::time::timeout(SECOND / 2, call(&mut service, Act::Never)).await.unwrap_err();
    assert_eq!(layer.snapshot().calls, 3, "a call that is cancelled early counts as nothing");
    tokio::time::timeout(SECOND * 3, call(&mut service, Act::Never)).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn only_the_configured_kinds_are_failures() {
    let (probe, _) = probe(1);
    for kind in ErrorKind::ALL {
        let counts = matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded);
        for act in [Act::Fail(kind), Act::Refuse(kind)] {
            let layer = sensitive();
            let _ = call(&mut layer.layer(probe.clone()), act).await;
            let expected = if counts { CircuitState::Open } else { CircuitState::Closed };
            assert_eq!(layer.snapshot().state, expected, "{act:?}");
            assert_eq!(layer.snapshot().calls, u64::from(counts), "{act:?}");
        }
    }
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        failures: [ErrorKind::RateLimited].into(),
        ..Default::default()
    });
    let mut service = layer.layer(probe);
    call(&mut service, Act::Fail(ErrorKind::Internal)).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    call(&mut service, Act::Fail(ErrorKind::RateLimited)).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_callers_that_allowed_too_little_time_is_ignored() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        min_caller_timeout: Some(SECOND),
        ..Default::default()
    });
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 5).layer(probe(1).0));
    let short = Request { deadline: Some((Instant::now() + SECOND / 10).into_std()), ..Request::new(Act::Never) };
    service.ready().await.unwrap().call(short).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    let long = Request { deadline: Some((Instant::now() + SECOND * 2).into_std()), ..Request::new(Act::Never) };
    service.ready().await.unwrap().call(long).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);

    let layer = sensitive();
    let mut service = layer.layer(TimeoutLayer::new(SECOND / 10).layer(probe(1).0));
    call(&mut service, Act::Never).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open, "the layer's own timeout always counts");
}

/// A service whose circuit is open and due for a probe, and another of the same layer.
async fn due(layer: &CircuitBreakerLayer, inner: Probe) -> [impl Circuit; 2] {
    let mut service = layer.layer(inner);
    call(&mut service, FAIL).await.unwrap_err();
    advance(SECOND).await;
    [service.clone(), service]
}

trait Circuit: Service<Request, Response: std::fmt::Debug, Error = CircuitBreakerError<ProbeError>> {}
impl<S: Service<Request, Response: std::fmt::Debug, Error = CircuitBreakerError<ProbeError>>> Circuit for S {}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_goes_through_and_its_success_closes_it() {
    let (probe, watch) = probe(4);
    let layer = sensitive();
    let [mut first, mut second] = due(&layer, probe).await;
    let response = first.ready().await.unwrap().call(Request::new(Act::Take(SECOND / 4)));
    assert_eq!(layer.snapshot().state, CircuitState::HalfOpen);
    rejected(&mut second).await;
    assert_eq!(watch.calls(), 2);
    response.await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    call(&mut second, Act::Answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_required_number_of_probes_must_succeed() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        max_probes: 2,
        required_successes: 3,
        ..Default::default()
    });
    let [mut first, mut second] = due(&layer, probe(4).0).await;
    let one = first.ready().await.unwrap().call(Request::new(Act::Take(SECOND / 4)));
    let two = second.ready().await.unwrap().call(Request::new(Act::Take(SECOND / 4)));
    rejected(&mut first).await;
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::HalfOpen);
    call(&mut first, Act::Answer).await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn probes_that_fail_double_the_open_time_up_to_the_bound() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        initial_open_time: SECOND,
        max_open_time: SECOND * 6,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    for expected in [1, 2, 4, 6, 6] {
        call(&mut service, FAIL).await.unwrap_err();
        let retry_after = rejected(&mut service).await;
        assert!((SECOND * expected * 3 / 4..=SECOND * expected).contains(&retry_after), "{retry_after:?}");
        advance(retry_after).await;
    }
    call(&mut service, Act::Answer).await.unwrap();
    // It has not recovered if it fails again soon; later it starts with the initial open time.
    call(&mut service, FAIL).await.unwrap_err();
    let soon = rejected(&mut service).await;
    assert!(soon > SECOND * 4, "{soon:?}");
    advance(soon).await;
    call(&mut service, Act::Answer).await.unwrap();
    advance(SECOND * 7).await;
    call(&mut service, FAIL).await.unwrap_err();
    assert!(rejected(&mut service).await <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_frees_its_permit_and_decides_nothing() {
    let layer = sensitive();
    let [mut first, mut second] = due(&layer, probe(4).0).await;
    let response = first.ready().await.unwrap().call(Request::new(Act::Never));
    rejected(&mut second).await;
    drop(response);
    assert_eq!(layer.snapshot().state, CircuitState::HalfOpen);

    first.ready().await.unwrap();
    rejected(&mut second).await;
    drop(first);
    assert_eq!(layer.snapshot().state, CircuitState::HalfOpen);
    call(&mut second, Act::Fail(ErrorKind::InvalidArgument)).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::HalfOpen);
    call(&mut second, Act::Answer).await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_never_ends_does_not_keep_it_open_for_ever() {
    let layer = sensitive();
    let [mut first, mut second] = due(&layer, probe(4).0).await;
    let endless = first.ready().await.unwrap().call(Request::new(Act::Never));
    advance(rejected(&mut second).await).await;
    call(&mut second, Act::Answer).await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    drop(endless);
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn outcomes_of_calls_admitted_before_a_transition_are_not_counted() {
    let layer = sensitive();
    let (probe, _) = probe(4);
    let mut late = layer.layer(probe.clone());
    let failing = late.ready().await.unwrap().call(Request::new(FAIL));
    let succeeding = late.ready().await.unwrap().call(Request::new(Act::Answer));
    let [mut service, _] = due(&layer, probe).await;
    succeeding.await.unwrap();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
    call(&mut service, Act::Answer).await.unwrap();
    failing.await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_a_failure() {
    let layer = sensitive();
    let mut service = layer.layer(probe(1).0);
    let future = service.ready().await.unwrap().call(Request::new(Act::Panic));
    AssertUnwindSafe(async { future.await.map(drop) }).catch_unwind().await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn failed_readiness_counts_like_a_failed_call() {
    let (probe, watch) = probe(1);
    let layer =
        CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: Some(2), ..Default::default() });
    let mut service = layer.layer(probe);
    watch.fail_readiness(ErrorKind::Unavailable);
    for _ in 0..2 {
        let error = service.ready().await.map(drop).unwrap_err();
        assert_eq!(error, CircuitBreakerError::Inner(ProbeError(ErrorKind::Unavailable)));
    }
    rejected(&mut service).await;
    advance(SECOND).await;
    // The probe's readiness fails too.
    service.ready().await.map(drop).unwrap_err();
    assert_eq!((layer.snapshot().state, layer.snapshot().opened), (CircuitState::Open, 2));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_does_not_wait_for_a_dead_service() {
    let (working, _) = probe(1);
    let layer = sensitive();
    let mut dead = layer.layer(ConcurrencyLimit::new(working.clone(), 0));
    let mut other = layer.layer(working);
    let mut waiting = tokio_test::task::spawn(std::future::poll_fn(|cx| dead.poll_ready(cx)));
    assert!(waiting.poll().is_pending());
    call(&mut other, FAIL).await.unwrap_err();
    // The waiting task is woken, and its call rejected.
    assert!(waiting.is_woken());
    assert!(waiting.poll().is_ready());
    drop(waiting);
    assert!(matches!(dead.call(Request::new(Act::Answer)).await, Err(CircuitBreakerError::Open { .. })));
    rejected(&mut dead).await;

    // When a probe is due one task waits, and no more.
    advance(SECOND).await;
    let mut next = dead.clone();
    let mut waiting = tokio_test::task::spawn(std::future::poll_fn(|cx| dead.poll_ready(cx)));
    assert!(waiting.poll().is_pending());
    rejected(&mut next).await;
    drop(waiting);
    drop(dead);
    let mut waiting = tokio_test::task::spawn(std::future::poll_fn(|cx| next.poll_ready(cx)));
    assert!(waiting.poll().is_pending(), "the permit of the probe is lost");
}

#[tokio::test(start_paused = true)]
async fn an_unready_circuit_waits_for_the_permit_of_a_probe() {
    let (probe, watch) = probe(4);
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        unready_while_open: true,
        ..Default::default()
    });
    let mut service = layer.layer(probe);
    call(&mut service, FAIL).await.unwrap_err();
    let begun = Instant::now();
    let mut other = service.clone();
    service.ready().await.unwrap();
    assert!((SECOND * 3 / 4..=SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let (wakes, waker) = Wakes::new();
    assert!(other.poll_ready(&mut std::task::Context::from_waker(&waker)).is_pending());
    assert_eq!(wakes.count(), 0);
    service.call(Request::new(Act::Answer)).await.unwrap();
    assert_eq!(wakes.count(), 1, "the circuit closed, and the waiting task was not woken");
    call(&mut other, Act::Answer).await.unwrap();
    assert_eq!((watch.calls(), watch.in_use()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn each_operation_has_a_circuit_and_those_past_the_limit_share_one() {
    let (probe, _) = probe(1);
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        max_keys: 2,
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe);
    let mut of =
        async |operation: &str, act| service.ready().await.unwrap().call(Request::of(operation, act)).await.map(drop);
    of("a", FAIL).await.unwrap_err();
    of("b", Act::Answer).await.unwrap();
    assert!(matches!(of("a", Act::Answer).await, Err(CircuitBreakerError::Open { .. })));
    let states = |names: &[&str]| {
        let statuses = layer.snapshots();
        assert_eq!(statuses.iter().map(|status| &*status.circuit).collect::<Vec<_>>(), names);
        statuses.into_iter().map(|status| status.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&["a", "b", "rest"]), [CircuitState::Open, CircuitState::Closed, CircuitState::Closed]);

    // b has no failures, so it is removed for c; the next removal is a second later at the earliest.
    of("c", FAIL).await.unwrap_err();
    assert_eq!(states(&["a", "c", "rest"]), [CircuitState::Open, CircuitState::Open, CircuitState::Closed]);
    of("d", FAIL).await.unwrap_err();
    assert!(matches!(of("e", Act::Answer).await, Err(CircuitBreakerError::Open { .. })));
    assert_eq!(states(&["a", "c", "rest"]), [CircuitState::Open; 3]);
}

#[tokio::test(start_paused = true)]
async fn unknown_names_get_no_circuit_and_the_first_failure_of_an_operation_counts() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(3),
        max_keys: 2,
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(4).0);
    let circuits = || layer.snapshots().into_iter().map(|it| (it.circuit, it.state)).collect::<Vec<_>>();
    let rest = ("rest".to_owned(), CircuitState::Closed);
    for n in 0..100 {
        for kind in [ErrorKind::NotFound, ErrorKind::InvalidArgument, ErrorKind::Overloaded] {
            let request = Request::of(&format!("made-up/{n}"), Act::Fail(kind));
            service.ready().await.unwrap().call(request).await.unwrap_err();
        }
    }
    assert_eq!(circuits(), std::slice::from_ref(&rest));

    // The first two calls run at the same time, before there is a circuit.
    let first = service.ready().await.unwrap().call(Request::of("a", FAIL));
    let second = service.ready().await.unwrap().call(Request::of("a", FAIL));
    first.await.unwrap_err();
    assert_eq!(circuits(), [("a".to_owned(), CircuitState::Closed), rest.clone()]);
    second.await.unwrap_err();
    let late = service.ready().await.unwrap().call(Request::of("b", FAIL));
    service.ready().await.unwrap().call(Request::of("a", FAIL)).await.unwrap_err();
    assert_eq!(circuits(), [("a".to_owned(), CircuitState::Open), rest.clone()]);

    // The outcome of a call that began before its circuit opened is not counted.
    for _ in 0..3 {
        service.ready().await.unwrap().call(Request::of("b", FAIL)).await.unwrap_err();
    }
    late.await.unwrap_err();
    let [_, b, _] = &layer.snapshots()[..] else { panic!("{:?}", circuits()) };
    assert_eq!((b.state, b.opened, b.failures), (CircuitState::Open, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_first_call_that_panics_or_is_cancelled_when_slow_counts() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        slow_call_duration: Some(SECOND),
        slow_call_rate: 0.5,
        window: SECOND * 1000,
        min_calls: 1,
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    let future = service.ready().await.unwrap().call(Request::of("panics", Act::Panic));
    AssertUnwindSafe(async { future.await.map(drop) }).catch_unwind().await.unwrap_err();
    let future = service.ready().await.unwrap().call(Request::of("slow", Act::Never));
    tokio::time::timeout(SECOND * 2, future).await.unwrap_err();
    let future = service.ready().await.unwrap().call(Request::of("left", Act::Never));
    tokio::time::timeout(SECOND / 2, future).await.unwrap_err();
    let open = layer.snapshots().into_iter().map(|it| (it.circuit, it.state == CircuitState::Open));
    assert_eq!(open.collect::<Vec<_>>(), [("panics".into(), true), ("slow".into(), true), ("rest".into(), false)]);
}

/// Made-up names that fail must not take all circuits for ever.
#[tokio::test(start_paused = true)]
async fn circuits_that_are_no_longer_called_are_removed_whatever_their_state() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(2),
        max_keys: 3,
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    let mut of =
        async |operation: &str, act| service.ready().await.unwrap().call(Request::of(operation, act)).await.map(drop);
    of("failed once", FAIL).await.unwrap_err();
    for operation in ["open", "probed"] {
        of(operation, FAIL).await.unwrap_err();
        of(operation, FAIL).await.unwrap_err();
    }
    advance(SECOND).await;
    of("probed", Act::Fail(ErrorKind::InvalidArgument)).await.unwrap_err();
    let names = || layer.snapshots().into_iter().map(|status| status.circuit).collect::<Vec<_>>();
    of("new", Act::Answer).await.unwrap();
    assert_eq!(names(), ["failed once", "open", "probed", "rest"], "what has failed lately is known");
    advance(SECOND * 10).await;
    of("new", Act::Answer).await.unwrap();
    assert_eq!(names(), ["new", "rest"]);
}

#[tokio::test(start_paused = true)]
async fn a_layer_applied_twice_or_cloned_is_one_circuit() {
    let (probe, _) = probe(2);
    let layer =
        CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: Some(2), ..Default::default() });
    let mut first = layer.layer(probe.clone());
    let mut second = layer.clone().layer(probe);
    call(&mut first, FAIL).await.unwrap_err();
    call(&mut second, FAIL).await.unwrap_err();
    rejected(&mut first).await;
    rejected(&mut second.clone()).await;
}

#[tokio::test(start_paused = true)]
async fn each_transition_and_nothing_else_is_logged() {
    let notes = Notes::new(::tracing::Level::TRACE);
    let guard = capture(notes.clone());
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        initial_open_time: SECOND,
        max_open_time: SECOND,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    call(&mut service, Act::Answer).await.unwrap();
    call(&mut service, FAIL).await.unwrap_err();
    let retry_after = rejected(&mut service).await;
    advance(retry_after).await;
    call(&mut service, Act::Answer).await.unwrap();
    drop(guard);
    let open_for = format!("{retry_after:?}");
    let expected = [
        format!(
            "outside: WARN circuit=all from=closed message=circuit opened open_for={open_for} \
             reason=too many consecutive failures to=open"
        ),
        "outside: INFO circuit=all from=open message=circuit half open reason=the open time is over to=half_open"
            .to_owned(),
        "outside: INFO circuit=all from=half_open message=circuit closed reason=the probes succeeded to=closed"
            .to_owned(),
    ];
    assert_eq!(notes.events(), expected);
}

#[tokio::test(start_paused = true)]
async fn successes_count_across_the_buckets_of_the_window_and_end_consecutive_failures() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(3),
        failure_rate: None,
        window: SECOND * 10,
        min_calls: 1,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    for step in 1..=30_u64 {
        for act in [FAIL, FAIL, Act::Answer, Act::Answer] {
            let _ = call(&mut service, act).await;
        }
        let status = layer.snapshot();
        assert_eq!((status.calls, status.failures), (4 * step.min(10), 2 * step.min(10)), "step {step}");
        assert_eq!((status.consecutive_failures, status.state), (0, CircuitState::Closed));
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_before_the_call_is_ignored_whatever_the_minimum() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        min_caller_timeout: Some(Duration::ZERO),
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    let expired = Act::Fail(ErrorKind::DeadlineExceeded);
    let now = Instant::now().into_std();
    advance(SECOND).await;
    let late = Request { deadline: Some(now), ..Request::new(expired) };
    service.ready().await.unwrap().call(late).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Closed);
    let now = Some(Instant::now().into_std());
    service.ready().await.unwrap().call(Request { deadline: now, ..Request::new(expired) }).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

fn by(tenant: &str, act: Act) -> Request {
    Request { deadline: None, ..Request::by(tenant, act) }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_caller_chose_is_no_failure_however_long_it_was() {
    let layer = sensitive();
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 30).layer(probe(1).0));
    for seconds in [1, 2, 29] {
        let deadline = Some((Instant::now() + SECOND * seconds + SECOND / 10).into_std());
        service.ready().await.unwrap().call(Request { deadline, ..Request::new(Act::Never) }).await.unwrap_err();
        assert_eq!(layer.snapshot().state, CircuitState::Closed, "a deadline of {seconds} s opened the circuit");
    }
    // One that is past the server's own timeout is not what has passed.
    let deadline = Some((Instant::now() + SECOND * 60).into_std());
    service.ready().await.unwrap().call(Request { deadline, ..Request::new(Act::Never) }).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_calls_fail_has_a_circuit_of_its_own_until_those_of_several_are_open() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(3),
        min_open_tenants: Some(THREE),
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    let mut call = async |tenant, act| service.ready().await.unwrap().call(by(tenant, act)).await.map(drop);
    call("good", Act::Answer).await.unwrap();
    for (opened, bad) in ["a", "b"].into_iter().enumerate() {
        for _ in 0..3 {
            assert_eq!(call(bad, FAIL).await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let rejected = call(bad, Act::Answer).await.unwrap_err();
        assert!(matches!(rejected, CircuitBreakerError::Open { .. }), "{rejected:?}");
        call("good", Act::Answer).await.unwrap();
        let status = &layer.snapshots()[0];
        assert_eq!((status.state, status.rejected), (CircuitState::Closed, opened as u64 + 1));
        assert_eq!((status.tenants_open, status.tenants_opened), (opened as u64 + 1, opened as u64 + 1));
    }
    for _ in 0..3 {
        call("c", FAIL).await.unwrap_err();
    }
    assert_eq!(layer.snapshots()[0].state, CircuitState::Open, "the circuits of three tenants are open");
    assert!(matches!(call("good", Act::Answer).await, Err(CircuitBreakerError::Open { .. })));
    advance(SECOND).await;
    call("good", Act::Answer).await.unwrap();
    assert_eq!(layer.snapshots()[0].state, CircuitState::Closed, "a probe of any tenant closes it");
    // The circuit of each tenant is probed by that tenant.
    call("a", Act::Answer).await.unwrap();
    call("a", Act::Answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_tenant_and_of_the_common_share_belong_to_the_operations_circuit() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(2),
        min_open_tenants: Some(THREE),
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    for _ in 0..2 {
        service.ready().await.unwrap().call(Request::new(FAIL)).await.unwrap_err();
    }
    assert_eq!(layer.snapshots()[0].state, CircuitState::Open);
    assert_eq!(layer.snapshots()[0].tenants_opened, 0);
}

#[tokio::test(start_paused = true)]
async fn circuits_of_tenants_are_limited_and_those_past_the_limit_share_one() {
    let many = std::num::NonZeroU32::MAX;
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        min_open_tenants: Some(many),
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    let mut call = async |tenant: u32, act| service.ready().await.unwrap().call(by(&tenant.to_string(), act)).await;
    call(0, Act::Answer).await.unwrap();
    for tenant in 0..5000 {
        // Past the limit the shared circuit is open.
        call(tenant, FAIL).await.unwrap_err();
    }
    let status = &layer.snapshots()[0];
    assert_eq!((status.state, status.tenants_open), (CircuitState::Closed, 4096 + 1));
    assert!(matches!(call(4999, Act::Answer).await, Err(CircuitBreakerError::Open { .. })));
    // All are removed once there have been no calls for long.
    advance(SECOND * 600).await;
    call(0, Act::Answer).await.unwrap();
    let status = &layer.snapshots()[0];
    assert!(status.tenants_open <= 1, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn operations_past_the_limit_have_circuits_by_tenant_as_well() {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(2),
        min_open_tenants: Some(THREE),
        max_keys: 0,
        ..Default::default()
    })
    .per_operation();
    let mut service = layer.layer(probe(1).0);
    let mut call = async |tenant, act| service.ready().await.unwrap().call(by(tenant, act)).await;
    for _ in 0..2 {
        call("bad", FAIL).await.unwrap_err();
    }
    assert!(matches!(call("bad", Act::Answer).await, Err(CircuitBreakerError::Open { .. })));
    call("good", Act::Answer).await.unwrap();
}

#[test]
fn a_configuration_that_makes_no_sense_is_rejected_by_the_name_of_its_field() {
    let default = CircuitBreakerConfig::default();
    for (field, config) in [
        ("failure_rate", CircuitBreakerConfig { failure_rate: Some(0.0), ..default }),
        ("failure_rate", CircuitBreakerConfig { failure_rate: Some(f64::NAN), ..default }),
        ("slow_call_rate", CircuitBreakerConfig { slow_call_rate: 1.1, ..default }),
        ("window", CircuitBreakerConfig { window: Duration::ZERO, ..default }),
        ("initial_open_time", CircuitBreakerConfig { initial_open_time: Duration::ZERO, ..default }),
        ("max_probes", CircuitBreakerConfig { max_probes: 0, ..default }),
    ] {
        let panic = std::panic::catch_unwind(|| CircuitBreakerLayer::with_config(config)).unwrap_err();
        let message = panic
            .downcast::<String>()
            .map_or_else(|panic| panic.downcast_ref::<&str>().unwrap().to_string(), |text| *text);
        assert!(message.starts_with(&format!("`{field}` must be")), "{message}");
    }
}
