use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{CoalesceLayer, TimeoutLayer};
use tower_kernels::middleware::coalesce::CoalesceError;
use tower_kernels::middleware::timeout::TimeoutError;
use tower_kernels::request::Priority;

use crate::support::probe::{Act, ProbeError, Request, Response, probe};

const SECOND: Duration = Duration::from_secs(1);

type Key = fn(&Request) -> Option<String>;
type Answer = Result<Response, CoalesceError<ProbeError>>;

fn key(request: &Request) -> Option<String> {
    (request.operation != "impure").then(|| request.operation.clone())
}

fn act(act: Act) -> Request {
    Request::new(act)
}

fn within(time: Duration, act: Act) -> Request {
    Request { deadline: Some(Instant::now().into_std() + time), ..Request::new(act) }
}

/// A layer around a probe with a number of permits, and a closure that calls it.
macro_rules! subject {
    ($places:literal => $layer:ident, $watch:ident, $call:ident) => {
        let (probe, $watch) = probe($places);
        let $layer = CoalesceLayer::new(key as Key);
        let service = $layer.layer(probe);
        let $call = |request: Request| {
            let mut service = service.clone();
            service.ready().now_or_never().expect("there is a place").unwrap().call(request)
        };
    };
}

#[tokio::test(start_paused = true)]
async fn equal_calls_in_flight_share_one_run_and_one_permit() {
    subject!(2 => layer, watch, call);
    let begun = Instant::now();
    let calls: Vec<_> = (0..100).map(|_| call(act(Act::Take(SECOND)))).collect();
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 1, 99));
    for answer in join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(begun.elapsed().as_millis(), 1000);
    assert_eq!((watch.calls(), layer.snapshot().led, layer.snapshot().joined), (1, 1, 99));
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0, 0));
    // Nothing is cached.
    call(act(Act::Answer)).await.unwrap();
    assert_eq!(watch.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_with_other_keys_or_without_one_run_alone() {
    subject!(4 => layer, watch, call);
    let calls = ["a", "b", "impure", "impure"].map(|operation| call(Request::of(operation, Act::Take(SECOND))));
    join_all(calls).await;
    assert_eq!((watch.calls(), layer.snapshot().led, layer.snapshot().joined), (4, 2, 0));
}

/// The first call is not polled while the second is awaited.
#[tokio::test(start_paused = true)]
async fn calls_of_one_task_can_be_awaited_in_any_order() {
    subject!(2 => layer, watch, call);
    let (first, second) = (call(act(Act::Take(SECOND))), call(act(Act::Never)));
    second.await.unwrap();
    first.await.unwrap();
    assert_eq!((watch.calls(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_run_continues_when_the_call_that_drives_it_is_cancelled() {
    for polled in [false, true] {
        subject!(2 => layer, watch, call);
        let begun = Instant::now();
        let mut calls: Vec<_> = (0..4).map(|_| task::spawn(call(act(Act::Take(SECOND))))).collect();
        for call in calls.iter_mut().filter(|_| polled) {
            assert_pending!(call.poll());
        }
        tokio::time::sleep(SECOND / 2).await;
        // The leader, and then others that may drive the run.
        for _ in 0..3 {
            drop(calls.remove(0));
            assert_eq!(watch.in_use(), 1);
        }
        calls.remove(0).await.unwrap();
        assert_eq!(begun.elapsed().as_millis(), 1000);
        assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 0, 0, 0));
    }
}

/// Like the call of a client that does not read its responses.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_polled_does_not_block_the_others() {
    for polls in [0, 1] {
        subject!(2 => layer, watch, call);
        let mut first = task::spawn(call(act(Act::Take(SECOND))));
        for _ in 0..polls {
            assert_pending!(first.poll());
        }
        let begun = Instant::now();
        call(act(Act::Never)).await.unwrap();
        assert_eq!((begun.elapsed().as_millis(), watch.calls(), watch.in_use()), (1000, 1, 0));
        drop(first);
        assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_not_lost_with_a_cancelled_call() {
    subject!(2 => layer, watch, call);
    let mut first = task::spawn(call(act(Act::Take(SECOND))));
    let mut second = task::spawn(call(act(Act::Never)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    tokio::time::sleep(SECOND).await;
    assert!(first.is_woken() && second.is_woken());
    // The second call is polled first and ends the run; the first then returns its outcome.
    assert!(second.poll().is_ready());
    assert!(first.poll().is_ready());

    let mut first = task::spawn(call(act(Act::Take(SECOND))));
    let mut second = task::spawn(call(act(Act::Never)));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    tokio::time::sleep(SECOND).await;
    drop(first);
    assert!(second.is_woken());
    assert!(second.poll().is_ready());
    assert_eq!((watch.calls(), layer.snapshot().in_flight, layer.snapshot().waiting), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_cancelled_call_cancels_the_work() {
    subject!(2 => layer, watch, call);
    for order in [[0, 0, 0], [2, 1, 0], [1, 1, 0]] {
        let mut calls: Vec<_> = (0..3).map(|_| task::spawn(call(act(Act::Never)))).collect();
        for call in &mut calls {
            assert_pending!(call.poll());
        }
        for at in order {
            assert_eq!((watch.in_use(), layer.snapshot().in_flight), (1, 1));
            drop(calls.remove(at));
        }
        assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_waits_until_its_own_deadline() {
    subject!(2 => layer, watch, call);
    let begun = Instant::now();
    let calls = [3, 1, 2].map(|wait| call(within(SECOND * wait, Act::Never)));
    let ends = join_all(calls.map(|call| async move {
        let error = call.await.unwrap_err();
        assert!(matches!(error, CoalesceError::Elapsed), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        begun.elapsed().as_millis()
    }));
    assert_eq!(ends.await, [3000, 1000, 2000]);
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_leader_with_a_short_deadline_fails_alone() {
    subject!(2 => layer, watch, call);
    let hasty = call(within(SECOND, Act::Take(SECOND * 2)));
    let patient = call(act(Act::Never));
    let (hasty, patient) = tokio::join!(hasty, patient);
    assert_eq!(hasty.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    patient.unwrap();
    assert_eq!((watch.calls(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 0, 0));
}

/// The inner service ends the run at the deadline of the leader.
#[tokio::test(start_paused = true)]
async fn calls_whose_deadline_has_not_passed_call_again_together() {
    let (probe, watch) = probe(1);
    let layer = CoalesceLayer::new(key as Key);
    let service = layer.layer(TimeoutLayer::new(SECOND * 60).layer(probe));
    let call = |request| service.clone().oneshot(request);
    let begun = Instant::now();
    let hasty = tokio::spawn(call(within(SECOND, Act::Take(SECOND * 2))));
    tokio::task::yield_now().await;
    // The run has the permit; calls that join need none.
    let patient: Vec<_> = (0..5)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move { service.ready().await.unwrap().call(act(Act::Take(SECOND * 2))).await })
        })
        .collect();
    assert_eq!(hasty.await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    for answer in join_all(patient).await {
        answer.unwrap().unwrap();
    }
    assert!(begun.elapsed() >= SECOND * 3, "a new run was started after the first second");
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0, 0));
}

/// A run that ends at its deadline after a second, and a call that has joined it and calls again with `request`, for which
/// there is no permit until `taken` has passed.
async fn cut_off(request: Request, taken: Duration) -> (Answer2, Duration) {
    let (probe, watch) = probe(1);
    let layer = CoalesceLayer::new(key as Key);
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 60).layer(probe));
    let begun = Instant::now();
    let hasty = tokio::spawn(service.ready().await.unwrap().call(within(SECOND, Act::Never)));
    tokio::task::yield_now().await;
    // The first that waits for the permit, and a call that joins and so needs none.
    let other = tokio::spawn(service.clone().oneshot(Request::of("other", Act::Take(taken))));
    tokio::task::yield_now().await;
    let patient = task::spawn(service.call(request)).await;
    let took = begun.elapsed();
    assert_eq!(hasty.await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    other.await.unwrap().unwrap();
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, watch.in_use()), (0, 0, 0));
    (patient, took)
}

type Answer2 = Result<Response, CoalesceError<TimeoutError<ProbeError>>>;

#[tokio::test(start_paused = true)]
async fn a_call_that_calls_again_waits_for_readiness_until_its_own_deadline() {
    let (answer, took) = cut_off(within(SECOND * 10, Act::Take(SECOND)), SECOND * 3).await;
    answer.unwrap();
    assert_eq!(took.as_millis(), 5000);

    let (answer, took) = cut_off(within(SECOND * 2, Act::Take(SECOND)), SECOND * 3).await;
    assert!(matches!(answer.unwrap_err(), CoalesceError::Elapsed));
    assert_eq!(took.as_millis(), 2000);
}

#[tokio::test(start_paused = true)]
async fn calls_that_call_again_share_one_run_with_one_permit() {
    let (probe, watch) = probe(1);
    let layer = CoalesceLayer::new(key as Key);
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 60).layer(probe));
    let begun = Instant::now();
    let hasty = service.ready().await.unwrap().call(within(SECOND, Act::Never));
    // Calls that join need no readiness.
    let patient: Vec<_> =
        (0..5).map(|_| tokio::spawn(service.call(within(SECOND * 10, Act::Take(SECOND * 2))))).collect();
    assert_eq!(hasty.await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    for answer in join_all(patient).await {
        answer.unwrap().unwrap();
    }
    assert_eq!((layer.snapshot().led, watch.calls(), begun.elapsed().as_millis()), (2, 2, 3000));
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, watch.in_use()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_call_that_leads_the_next_run_may_be_cancelled_before_it_starts() {
    let (probe, watch) = probe(1);
    let layer = CoalesceLayer::new(key as Key);
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 60).layer(probe));
    let mut hasty = task::spawn(service.ready().await.unwrap().call(within(SECOND, Act::Never)));
    assert_pending!(hasty.poll());
    let other = tokio::spawn(service.clone().oneshot(Request::of("impure", Act::Take(SECOND * 3))));
    tokio::task::yield_now().await;
    let mut patient: Vec<_> = (0..3).map(|_| task::spawn(service.call(act(Act::Take(SECOND))))).collect();
    for call in &mut patient {
        assert_pending!(call.poll());
    }
    tokio::time::sleep(SECOND * 2).await;
    assert!(hasty.poll().is_ready());
    // The first of these leads the next run and waits for the permit; the others wait for the run.
    for call in &mut patient {
        assert_pending!(call.poll());
    }
    assert_eq!((layer.snapshot().led, layer.snapshot().in_flight, layer.snapshot().waiting), (2, 1, 2));
    drop(patient.remove(0));
    for call in &mut patient {
        assert!(call.is_woken());
        assert_pending!(call.poll());
    }
    assert_eq!((layer.snapshot().led, layer.snapshot().in_flight, layer.snapshot().waiting), (3, 1, 1));
    for answer in join_all(patient).await {
        answer.unwrap();
    }
    other.await.unwrap().unwrap();
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, watch.in_use(), watch.calls()), (0, 0, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_run_can_have_more_time_than_its_leader() {
    let (probe, watch) = probe(2);
    let layer = CoalesceLayer::new(key as Key).min_run_time(SECOND * 10);
    let mut service = layer.layer(TimeoutLayer::new(SECOND * 60).layer(probe));
    let begun = Instant::now();
    let hasty = service.ready().await.unwrap().call(within(SECOND, Act::Take(SECOND * 2)));
    let patient = service.ready().await.unwrap().call(within(SECOND * 5, Act::Never));
    let (hasty, patient) = tokio::join!(hasty, patient);
    assert!(matches!(hasty.unwrap_err(), CoalesceError::Elapsed));
    assert_eq!(patient.unwrap().deadline, Some(begun.into_std() + SECOND * 10));
    assert_eq!((begun.elapsed().as_millis(), watch.calls(), layer.snapshot().in_flight), (2000, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn all_callers_get_the_error_with_its_classification() {
    subject!(2 => layer, watch, call);
    let calls: Vec<_> = (0..3).map(|_| call(act(Act::Fail(ErrorKind::Overloaded)))).collect();
    for answer in join_all(calls).await {
        let error: CoalesceError<ProbeError> = answer.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, Some(SECOND * 7)));
    }
    assert_eq!((watch.calls(), layer.snapshot().in_flight, layer.snapshot().waiting), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_goes_to_the_call_that_polled_and_the_others_get_an_error() {
    subject!(2 => layer, watch, call);
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(call(act(Act::Panic)))).collect();
    let (mut panics, mut told) = (0, 0);
    for ended in join_all(tasks).await {
        match ended {
            Err(error) => panics += usize::from(error.is_panic()),
            Ok(answer) => told += usize::from(matches!(answer.unwrap_err(), CoalesceError::Panicked)),
        }
    }
    assert_eq!((panics, told), (1, 2));
    assert_eq!((watch.in_use(), layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0, 0));
    call(act(Act::Answer)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_removes_the_run() {
    let layer = CoalesceLayer::new(key as Key);
    let service =
        layer.layer(tower::service_fn(|request: Request| -> futures::future::Ready<Result<Response, ProbeError>> {
            panic!("{:?}", request.act)
        }));
    let panicked = std::panic::AssertUnwindSafe(async { service.clone().oneshot(act(Act::Panic)).await });
    assert!(panicked.catch_unwind().await.is_err());
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting, layer.snapshot().led), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn urgent_calls_do_not_join_less_urgent_runs() {
    subject!(4 => layer, watch, call);
    let of = |priority| Request { priority, ..act(Act::Take(SECOND)) };
    let low = call(of(Priority::Low));
    let high = call(of(Priority::High));
    let (joins_high, too) = (call(of(Priority::Low)), call(of(Priority::Normal)));
    assert_eq!((layer.snapshot().led, layer.snapshot().joined, layer.snapshot().in_flight), (2, 2, 2));
    for answer in join_all([low, high, joins_high, too]).await {
        answer.unwrap();
    }
    assert_eq!((watch.calls(), layer.snapshot().in_flight, layer.snapshot().waiting), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_joins_leaves_the_readiness_for_the_next() {
    let (probe, watch) = probe(2);
    let mut service = CoalesceLayer::new(key as Key).layer(probe);
    let first = service.ready().await.unwrap().call(act(Act::Take(SECOND)));
    let second = service.ready().await.unwrap().call(act(Act::Never));
    assert_eq!((watch.in_use(), watch.calls()), (2, 1));
    let other = service.ready().await.unwrap().call(Request::of("other", Act::Answer));
    assert_eq!(watch.calls(), 2);
    let (first, second, other) = tokio::join!(first, second, other);
    assert!(first.is_ok() && second.is_ok() && other.is_ok());
}

/// Calls that join, are polled on any thread and are cancelled at random, over runs that take several polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_that_join_and_are_cancelled_all_get_their_response() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let layer = CoalesceLayer::new(|request: &http::Request<u64>| Some(*request.body()));
    let service = layer.layer(tower::service_fn(move |request: http::Request<u64>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            for _ in 0..*request.body() % 5 {
                tokio::task::yield_now().await;
            }
            Ok::<_, std::convert::Infallible>(*request.body())
        }
    }));
    let tasks: Vec<_> = (0..8_u64)
        .map(|seed| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut random = seed * 0x9e37_79b9 + 1;
                for _ in 0..20_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let number = (random >> 33) % 7;
                    let call = service.clone().oneshot(http::Request::new(number));
                    if (random >> 40) % 4 == 0 {
                        let mut call = task::spawn(call);
                        if let Poll::Ready(answer) = call.poll() {
                            assert_eq!(answer.unwrap(), number);
                        }
                    } else {
                        let answer = tokio::time::timeout(Duration::from_secs(30), call).await;
                        assert_eq!(answer.expect("no call was woken").unwrap(), number);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
    assert_eq!(layer.snapshot().led + layer.snapshot().joined, 160_000);
    assert_eq!(layer.snapshot().led, runs.load(Ordering::Relaxed) as u64);
    assert!(layer.snapshot().joined > 0);
}

#[tokio::test]
async fn a_burst_of_equal_calls_is_one_run() {
    let (probe, watch) = probe(10_001);
    let layer = CoalesceLayer::new(key as Key);
    let service = layer.layer(probe);
    let calls: Vec<_> = (0..10_000).map(|_| service.clone().oneshot(act(Act::Take(SECOND / 20)))).collect();
    let answers: Vec<Answer> = join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((watch.calls(), layer.snapshot().led, layer.snapshot().joined), (1, 1, 9_999));
}
