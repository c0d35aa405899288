use std::convert::Infallible;
use std::future::{Ready, ready};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::PriorityQueueLayer;
use tower_kernels::middleware::priority_queue::{PriorityQueue, PriorityQueueError, ResponseFuture};
use tower_kernels::request::{Priority, RequestContext, ResponseContext};

use crate::support::probe::{Act, Probe, ProbeError, Request, Watch, probe};
use crate::support::wakes::Wakes;

const SECOND: Duration = Duration::from_secs(1);
const TURN: Act = Act::Take(Duration::from_millis(10));

fn request(priority: Priority) -> Request {
    Request { priority, ..Request::new(TURN) }
}

fn due(request: Request, seconds: u64) -> Request {
    Request { deadline: Some((Instant::now() + SECOND * seconds as u32).into_std()), ..request }
}

/// A queue around a probe with one permit, and the service that holds it.
async fn busy(layer: &PriorityQueueLayer) -> (PriorityQueue<Probe>, Watch, Probe) {
    let (probe, watch) = probe(1);
    let mut holder = probe.clone();
    holder.ready().await.unwrap();
    (layer.layer(probe), watch, holder)
}

/// Makes a call that waits.
async fn wait(service: &mut PriorityQueue<Probe>, request: Request) -> ResponseFuture<Probe, Request> {
    service.ready().await.unwrap().call(request)
}

/// Waiting calls, each on a task of its own, and their names in the order of completion.
#[derive(Default)]
struct Race {
    tasks: tokio::task::JoinSet<()>,
    answered: Arc<Mutex<Vec<String>>>,
}

impl Race {
    async fn join(&mut self, name: impl Into<String>, service: &mut PriorityQueue<Probe>, request: Request) {
        let (future, answered, name) = (wait(service, request).await, Arc::clone(&self.answered), name.into());
        self.tasks.spawn(async move {
            let result = future.await;
            answered.lock().unwrap().push(name.clone());
            assert!(result.is_ok(), "{name}: {result:?}");
        });
    }

    async fn order(self, release: Probe) -> Vec<String> {
        drop(release);
        self.tasks.join_all().await;
        std::mem::take(&mut *self.answered.lock().unwrap())
    }
}

#[test]
fn without_waiting_calls_a_call_passes_straight_through_and_needs_no_runtime() {
    let layer = PriorityQueueLayer::new(0);
    let (probe, watch) = probe(1);
    let mut service = layer.layer(probe);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(service.poll_ready(&mut cx).is_ready());
        let future = std::pin::pin!(service.call(Request::new(Act::Answer)));
        assert!(future.poll(&mut cx).is_ready());
    }
    assert_eq!((watch.calls(), watch.in_use()), (3, 0));
    assert_eq!(layer.snapshot(), Default::default());
}

#[tokio::test(start_paused = true)]
async fn the_higher_priority_is_next_and_within_it_the_earlier_deadline() {
    let layer = PriorityQueueLayer::new(16);
    let (mut service, watch, holder) = busy(&layer).await;
    let mut race = Race::default();
    race.join("low, due at once", &mut service, due(request(Priority::Low), 2)).await;
    race.join("normal, first", &mut service, request(Priority::Normal)).await;
    race.join("normal, second", &mut service, request(Priority::Normal)).await;
    race.join("normal, due in 9 s", &mut service, due(request(Priority::Normal), 9)).await;
    race.join("normal, due in 5 s", &mut service, due(request(Priority::Normal), 5)).await;
    race.join("high", &mut service, request(Priority::High)).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(layer.snapshot().waiting_by_priority, [1, 4, 1]);
    assert_eq!(watch.calls(), 0);
    let order = race.order(holder).await;
    let expected =
        ["high", "normal, due in 5 s", "normal, due in 9 s", "normal, first", "normal, second", "low, due at once"];
    assert_eq!(order, expected);
    assert_eq!((watch.in_use(), layer.snapshot().waiting, layer.snapshot().served), (0, 0, 6));
}

#[tokio::test(start_paused = true)]
async fn the_next_call_is_chosen_when_the_inner_service_is_ready() {
    let layer = PriorityQueueLayer::new(16);
    let (mut service, _, holder) = busy(&layer).await;
    let mut race = Race::default();
    race.join("low", &mut service, request(Priority::Low)).await;
    // The worker is queued in the inner service already, on behalf of the call that is next then.
    tokio::time::sleep(SECOND).await;
    race.join("high", &mut service, request(Priority::High)).await;
    assert_eq!(race.order(holder).await, ["high", "low"]);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_by_their_weights() {
    let layer = PriorityQueueLayer::new(64).weight("heavy", NonZeroU16::new(2).unwrap());
    let (mut service, _, holder) = busy(&layer).await;
    let mut race = Race::default();
    for tenant in ["flood", "light", "heavy"] {
        for _ in 0..if tenant == "flood" { 20 } else { 4 } {
            race.join(tenant, &mut service, Request::by(tenant, TURN)).await;
        }
    }
    let order = race.order(holder).await;
    // Each has its first turn at once, and then one for one, and two for the heavy one.
    let first = |tenant: &str, turns: usize| order[..turns].iter().filter(|name| *name == tenant).count();
    assert_eq!(["flood", "light", "heavy"].map(|tenant| first(tenant, 8)), [2, 2, 4]);
    assert_eq!(["flood", "light", "heavy"].map(|tenant| first(tenant, 12)), [4, 4, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_urgent_calls_leaves_the_others_one_turn_in_seventeen_unless_strict() {
    for (layer, place) in [(PriorityQueueLayer::new(64), 16), (PriorityQueueLayer::new(64).strict_priority(), 40)] {
        let (mut service, _, holder) = busy(&layer).await;
        let mut race = Race::default();
        race.join("low", &mut service, request(Priority::Low)).await;
        for _ in 0..40 {
            race.join("high", &mut service, request(Priority::High)).await;
        }
        assert_eq!(race.order(holder).await.iter().position(|name| name == "low"), Some(place));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_expires_at_its_deadline_and_not_when_it_is_next() {
    let layer = PriorityQueueLayer::new(16);
    let (mut service, watch, _holder) = busy(&layer).await;
    let begun = Instant::now();
    // Never polled: the timer is the queue's, not the caller's.
    let unpolled = wait(&mut service, due(request(Priority::High), 5)).await;
    let first = tokio::spawn(wait(&mut service, request(Priority::High)).await);
    // Arrives later and is due earlier than the others: the timer is reset.
    tokio::time::sleep(SECOND).await;
    let soon = wait(&mut service, due(request(Priority::Low), 1)).await;
    assert_eq!(soon.await.unwrap_err(), PriorityQueueError::Expired);
    assert!((SECOND * 2..SECOND * 2 + SECOND / 100).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    tokio::time::sleep_until(begun + SECOND * 5 + SECOND / 100).await;
    assert_eq!((layer.snapshot().expired, layer.snapshot().waiting), (2, 1));
    let error = unpolled.await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::DeadlineExceeded, None));
    assert_eq!(watch.calls(), 0);
    assert!(!first.is_finished());
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_does_not_wait() {
    let layer = PriorityQueueLayer::new(16);
    let (mut service, _, _holder) = busy(&layer).await;
    let late = wait(&mut service, due(request(Priority::High), 0)).await;
    assert_eq!((layer.snapshot().waiting, layer.snapshot().reserved), (0, 0));
    assert_eq!(late.await.unwrap_err(), PriorityQueueError::Expired);
    assert_eq!(layer.snapshot().expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_complete_in_time_does_not_wait_until_its_deadline() {
    let layer = PriorityQueueLayer::new(16).min_service_time(SECOND * 3);
    let (mut service, watch, _holder) = busy(&layer).await;
    let begun = Instant::now();
    let late = wait(&mut service, due(request(Priority::High), 3)).await.await.unwrap_err();
    // The deadline has not passed: this is overload.
    assert_eq!((late.kind(), late), (ErrorKind::Overloaded, PriorityQueueError::Late { retry_after: None }));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let later = wait(&mut service, due(request(Priority::High), 5)).await;
    assert_eq!(later.await.unwrap_err(), PriorityQueueError::Late { retry_after: None });
    assert!((SECOND * 2..SECOND * 2 + SECOND / 100).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((watch.calls(), layer.snapshot().expired), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn service_times_are_learned_and_calls_that_would_be_late_are_not_served() {
    let layer = PriorityQueueLayer::new(16).learn_service_times();
    let (probe, watch) = probe(1);
    let service = layer.layer(probe);
    let begun = Instant::now();
    let calls: Vec<_> = [7, 7, 7, 2]
        .map(|seconds| {
            let request = due(Request { act: Act::Take(SECOND * 2), ..request(Priority::Normal) }, seconds);
            let call = service.clone().oneshot(request);
            tokio::spawn(async move { (call.await, begun.elapsed()) })
        })
        .into();
    let mut outcomes = Vec::new();
    for call in calls {
        let (result, at) = call.await.unwrap();
        outcomes.push((result.err().map(|error| error.kind()), at.as_secs()));
    }
    // The last one has no more time than it takes, and waited for the first: its deadline passed.
    assert_eq!(outcomes, [(None, 2), (None, 4), (None, 6), (Some(ErrorKind::DeadlineExceeded), 2)]);

    // Now it is known that they take two seconds. While one runs for two, one with three could begin with one left.
    let begun = Instant::now();
    let running =
        tokio::spawn(service.clone().oneshot(Request { act: Act::Take(SECOND * 2), ..request(Priority::High) }));
    tokio::task::yield_now().await;
    let late = due(Request { act: Act::Take(SECOND * 2), ..request(Priority::High) }, 3);
    let late = service.clone().oneshot(late).await.unwrap_err();
    assert!(matches!(late, PriorityQueueError::Late { retry_after: Some(_) }), "{late:?}");
    // As soon as that is so, which is two seconds before its deadline.
    assert_eq!(begun.elapsed().as_secs(), 1);
    running.await.unwrap().unwrap();
    assert_eq!((watch.calls(), layer.snapshot().expired), (4, 2));
}

/// A rejection takes less time than a success, and says nothing about how long that takes.
#[tokio::test(start_paused = true)]
async fn rejected_calls_teach_no_service_time() {
    let layer = PriorityQueueLayer::new(64).learn_service_times();
    let service = layer.layer(probe(1).0);
    let long = || Request { act: Act::Take(SECOND * 2), ..request(Priority::Normal) };
    let mut learned = tokio::task::JoinSet::new();
    (0..3).for_each(|_| drop(learned.spawn(service.clone().oneshot(long()))));
    assert!(learned.join_all().await.iter().all(Result::is_ok));

    // Only those that wait are watched, so there is something to wait for.
    let mut rejected = tokio::task::JoinSet::new();
    rejected.spawn(service.clone().oneshot(long()));
    tokio::task::yield_now().await;
    for _ in 0..60 {
        let request = Request { act: Act::Refuse(ErrorKind::NotFound), ..request(Priority::Normal) };
        rejected.spawn(service.clone().oneshot(request));
    }
    assert!(rejected.join_all().await.iter().all(Result::is_ok));

    let running = tokio::spawn(service.clone().oneshot(long()));
    tokio::task::yield_now().await;
    let late = service.clone().oneshot(due(long(), 3)).await.unwrap_err();
    assert!(matches!(late, PriorityQueueError::Late { .. }), "{late:?}");
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_time_learned_while_a_call_waits_counts_at_its_turn() {
    let layer = PriorityQueueLayer::new(64).learn_service_times();
    let (probe, watch) = probe(1);
    let service = layer.layer(probe);
    // All come before anything is known: the third would begin with 200 ms left.
    let calls: Vec<_> = (0..40)
        .map(|_| {
            tokio::spawn(
                service
                    .clone()
                    .oneshot(due(Request { act: Act::Take(SECOND * 2 / 5), ..request(Priority::Normal) }, 1)),
            )
        })
        .collect();
    let mut kinds = Vec::new();
    for call in calls {
        kinds.push(call.await.unwrap().err().map(|error| error.kind()));
    }
    assert_eq!(kinds[..2], [None, None]);
    assert!(kinds[2..].iter().all(|&kind| kind == Some(ErrorKind::Overloaded)), "{kinds:?}");
    assert_eq!((watch.calls(), layer.snapshot().expired), (2, 38));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_rejects_the_least_urgent_calls() {
    let layer = PriorityQueueLayer::new(3);
    let (mut service, _, holder) = busy(&layer).await;
    let low = wait(&mut service, request(Priority::Low)).await;
    let lower = wait(&mut service, due(request(Priority::Low), 60)).await;
    let normal = wait(&mut service, request(Priority::Normal)).await;

    // No call is less urgent than a low one, so it is rejected itself.
    let rejected = wait(&mut service, request(Priority::Low)).await.await.unwrap_err();
    assert_eq!(rejected, PriorityQueueError::Full { retry_after: None });
    assert_eq!(rejected.kind(), ErrorKind::Overloaded);
    // A higher one displaces the last one of the lowest priority.
    let high = wait(&mut service, request(Priority::High)).await;
    let displaced = low.await.unwrap_err();
    assert_eq!(displaced, PriorityQueueError::Displaced { retry_after: None });
    assert_eq!(displaced.kind(), ErrorKind::Overloaded);
    let higher = wait(&mut service, request(Priority::High)).await;
    assert!(matches!(lower.await.unwrap_err(), PriorityQueueError::Displaced { .. }));
    let highest = wait(&mut service, request(Priority::High)).await;
    assert!(matches!(normal.await.unwrap_err(), PriorityQueueError::Displaced { .. }));
    let snapshot = layer.snapshot();
    assert_eq!((snapshot.waiting, snapshot.rejected, snapshot.displaced, snapshot.reserved), (3, 1, 3, 0));

    // Now no call would find room, so it is not ready.
    let (wakes, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    drop(high);
    assert_eq!(wakes.count(), 1);
    service.ready().await.unwrap();
    drop(holder);
    drop(service);
    let (higher, highest) = tokio::join!(higher, highest);
    assert!(higher.is_ok() && highest.is_ok());
    let snapshot = layer.snapshot();
    assert_eq!((snapshot.waiting, snapshot.reserved, snapshot.waiting_bytes), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_tenant_keeps_others_out_by_filling_the_queue() {
    let layer = PriorityQueueLayer::new(10);
    let (mut service, _, holder) = busy(&layer).await;
    let by = |tenant: &str| Request { priority: Priority::Normal, ..Request::by(tenant, TURN) };
    let mut flood = Vec::new();
    for _ in 0..10 {
        flood.push(tokio::spawn(wait(&mut service, by("flood")).await));
    }
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(tokio::spawn(wait(&mut service, by("other")).await));
    }
    // They have as many waiting now, and a further call of either is rejected itself.
    for tenant in ["flood", "other"] {
        let rejected = wait(&mut service, by(tenant)).await.await.unwrap_err();
        assert!(matches!(rejected, PriorityQueueError::Full { .. }), "{rejected:?}");
    }
    drop(holder);
    let served = |results: Vec<Result<_, PriorityQueueError<ProbeError>>>| results.iter().filter(|r| r.is_ok()).count();
    let flood = futures::future::join_all(flood).await.into_iter().map(Result::unwrap).collect();
    let others = futures::future::join_all(others).await.into_iter().map(Result::unwrap).collect();
    assert_eq!((served(flood), served(others)), (5, 5));
    assert_eq!((layer.snapshot().displaced, layer.snapshot().rejected), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_says_when_the_calls_ahead_will_have_been_served() {
    let layer = PriorityQueueLayer::new(4);
    let (mut service, _, holder) = busy(&layer).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        waiting.spawn(wait(&mut service, request(Priority::Normal)).await);
    }
    drop(holder);
    // Each takes 10 ms. Three have had their turn, and one waits when four more come.
    tokio::time::sleep(Duration::from_millis(25)).await;
    assert_eq!(layer.snapshot().waiting_by_priority[Priority::Normal as usize], 1);
    for _ in 0..3 {
        waiting.spawn(wait(&mut service, request(Priority::Normal)).await);
    }
    let rejected = wait(&mut service, request(Priority::Normal)).await.await.unwrap_err();
    let after = rejected.retry_after().unwrap().as_secs_f64();
    // Four before it and itself, in tokio's milliseconds.
    assert!((0.050..0.060).contains(&after), "{after}");
    // Of those only the high ones are before a high one.
    let high = wait(&mut service, request(Priority::High)).await;
    assert_eq!((layer.snapshot().waiting_by_priority[Priority::High as usize], layer.snapshot().displaced), (1, 1));
    drop(high);
    while let Some(done) = waiting.join_next().await {
        if let Err(error) = done.unwrap() {
            assert!(error.retry_after().is_some(), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_bounded_in_bytes_as_well() {
    let layer = PriorityQueueLayer::new(100).max_bytes(1000);
    let (mut service, _, holder) = busy(&layer).await;
    let sized = |priority, bytes| Request { bytes: Some(bytes), ..request(priority) };
    let mut small = Vec::new();
    for _ in 0..4 {
        small.push(wait(&mut service, sized(Priority::Low, 200)).await);
    }
    assert_eq!(layer.snapshot().waiting_bytes, 800);
    // A second high one would not fit even if all low ones were displaced, so none is.
    let high = wait(&mut service, sized(Priority::High, 300)).await;
    assert_eq!((layer.snapshot().waiting_bytes, layer.snapshot().displaced), (900, 1));
    let rejected = wait(&mut service, sized(Priority::High, 701)).await.await.unwrap_err();
    assert!(matches!(rejected, PriorityQueueError::Full { .. }));
    assert_eq!((layer.snapshot().waiting_bytes, layer.snapshot().displaced), (900, 1));
    // One that takes what two and more have.
    let large = wait(&mut service, sized(Priority::Normal, 700)).await;
    assert_eq!((layer.snapshot().waiting_bytes, layer.snapshot().displaced), (1000, 4));
    drop((high, large, small, holder));
    assert_eq!(layer.snapshot().waiting_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn with_wait_when_full_a_full_queue_is_not_ready() {
    let layer = PriorityQueueLayer::new(2).wait_when_full();
    let (mut service, watch, holder) = busy(&layer).await;
    let first = wait(&mut service, request(Priority::Low)).await;
    let second = wait(&mut service, request(Priority::Low)).await;
    let (wakes, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert!(tokio::time::timeout(SECOND, service.ready()).await.is_err());
    drop(holder);
    let third = async { wait(&mut service, request(Priority::Low)).await.await };
    let (first, second, third) = tokio::join!(first, second, third);
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!((layer.snapshot().rejected, layer.snapshot().displaced, watch.calls(), watch.in_use()), (0, 0, 3, 0));
    assert!(wakes.count() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_gives_its_permit_and_its_turn_to_the_next() {
    let layer = PriorityQueueLayer::new(2);
    let (mut service, watch, holder) = busy(&layer).await;
    let leaves = wait(&mut service, request(Priority::High)).await;
    let stays = wait(&mut service, request(Priority::High)).await;
    assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(holder);
    tokio::time::sleep(SECOND).await;
    // It has been given the inner service, and is not polled.
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().waiting), (0, 1, 1));
    drop(leaves);
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (1, 0), "handed on at once, with its readiness");
    stays.await.unwrap();
    assert_eq!((watch.calls(), watch.in_use()), (1, 0));

    // With the last call, the worker ends and releases what it has reserved.
    drop(service);
    let (mut service, watch, holder) = busy(&layer).await;
    let only = wait(&mut service, request(Priority::High)).await;
    tokio::task::yield_now().await;
    drop(only);
    drop(holder);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((watch.in_use(), layer.snapshot().waiting, layer.snapshot().reserved), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_poll_holds_up_nobody_else() {
    let layer = PriorityQueueLayer::new(8);
    let (probe, watch) = probe(2);
    let mut holders = [probe.clone(), probe.clone()];
    for holder in &mut holders {
        holder.ready().await.unwrap();
    }
    let mut service = layer.layer(probe);
    let unpolled = wait(&mut service, request(Priority::High)).await;
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..5 {
        others.spawn(wait(&mut service, request(Priority::Low)).await);
    }
    drop(holders);
    assert!(others.join_all().await.iter().all(Result::is_ok));
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (1, 0), "the one permit that it was given");
    unpolled.await.unwrap();
    assert_eq!(watch.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn if_readiness_fails_every_call_has_an_error_of_its_own() {
    let layer = PriorityQueueLayer::new(8);
    let (mut service, watch, holder) = busy(&layer).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(wait(&mut service, request(Priority::Normal)).await);
    }
    tokio::task::yield_now().await;
    watch.fail_readiness(ErrorKind::Unavailable);
    drop(holder);
    for result in waiting.join_all().await {
        assert_eq!(result.unwrap_err(), PriorityQueueError::Inner(ProbeError(ErrorKind::Unavailable)));
    }
    assert_eq!((watch.in_use(), layer.snapshot().waiting), (0, 0));
}

/// Pending until it is set to panic or to be ready.
#[derive(Clone, Default)]
struct Moody {
    panics: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Moody {
    fn tell(&self, flag: &AtomicBool, to: bool) {
        flag.store(to, Ordering::SeqCst);
        self.waker.lock().unwrap().take().into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Plain;

impl RequestContext for Plain {}

impl ResponseContext for Plain {}

impl Service<Plain> for Moody {
    type Response = Plain;
    type Error = Infallible;
    type Future = Ready<Result<Plain, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to panic");
        if self.ready.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, request: Plain) -> Self::Future {
        ready(Ok(request))
    }
}

#[tokio::test(start_paused = true)]
async fn if_the_worker_ends_all_waiting_calls_fail_and_the_next_call_starts_another() {
    let layer = PriorityQueueLayer::new(8);
    let inner = Moody::default();
    let mut service = layer.layer(inner.clone());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        waiting.spawn(service.ready().await.unwrap().call(Plain));
    }
    let unpolled = service.ready().await.unwrap().call(Plain);
    tokio::task::yield_now().await;
    inner.tell(&inner.panics, true);
    for result in waiting.join_all().await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error), (ErrorKind::Unavailable, PriorityQueueError::Stopped));
    }
    assert_eq!(unpolled.await.unwrap_err(), PriorityQueueError::Stopped);
    assert_eq!((layer.snapshot().waiting, layer.snapshot().reserved), (0, 0));

    inner.tell(&inner.panics, false);
    let next = tokio::spawn(service.ready().await.unwrap().call(Plain));
    tokio::task::yield_now().await;
    inner.tell(&inner.ready, true);
    next.await.unwrap().unwrap();
}

#[test]
fn a_runtime_that_is_shut_down_fails_calls_that_wait_on_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let layer = PriorityQueueLayer::new(8);
    let inner = Moody::default();
    let mut service = layer.layer(inner.clone());
    let waits = {
        let _context = first.enter();
        assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        service.call(Plain)
    };
    drop(first);
    let waiting = second.block_on(async { tokio::time::timeout(SECOND * 10, waits).await });
    assert_eq!(waiting.unwrap().unwrap_err(), PriorityQueueError::Stopped);
    second.block_on(async {
        let next = tokio::spawn(service.ready().await.unwrap().call(Plain));
        tokio::task::yield_now().await;
        inner.tell(&inner.ready, true);
        next.await.unwrap().unwrap();
    });
}

#[tokio::test]
async fn a_burst_from_one_task_is_not_taken_for_a_full_service() {
    // Far more calls than a task's budget lets Tokio's semaphore say yes to, on a machine with room for all of them.
    let layer = PriorityQueueLayer::new(8);
    let (probe, _) = probe(10_000);
    let mut service = layer.layer(probe);
    let mut cx = Context::from_waker(Waker::noop());
    let mut calls = Vec::new();
    for _ in 0..10_000 {
        assert!(service.poll_ready(&mut cx).is_ready());
        calls.push(service.call(Request { priority: Priority::Low, ..Request::new(Act::Answer) }));
    }
    for call in calls {
        call.await.unwrap();
    }
    let snapshot = layer.snapshot();
    assert_eq!((snapshot.rejected, snapshot.displaced, snapshot.served, snapshot.waiting), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_layer_around_several_services_is_one_bound_and_one_count() {
    let layer = PriorityQueueLayer::new(2);
    let (mut first, _, _holder) = busy(&layer).await;
    let (mut second, _, holder) = busy(&layer.clone()).await;
    let mut third = second.clone();
    let on_first = wait(&mut first, request(Priority::Normal)).await;
    let on_second = wait(&mut second, request(Priority::Normal)).await;
    assert_eq!(layer.snapshot().waiting_by_priority[Priority::Normal as usize], 2);
    let rejected = wait(&mut third, request(Priority::Normal)).await.await.unwrap_err();
    assert!(matches!(rejected, PriorityQueueError::Full { .. }));
    drop(on_first);
    let on_third = wait(&mut third, request(Priority::Normal)).await;
    drop(holder);
    let (second, third) = tokio::join!(on_second, on_third);
    assert!(second.is_ok() && third.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_from_two_threads_every_call_has_one_outcome_and_the_counts_add_up() {
    let layer = PriorityQueueLayer::new(64).max_bytes(64_000);
    let (probe, watch) = probe(4);
    let service = layer.layer(probe);
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..64_u64 {
        let mut service = service.clone();
        tasks.spawn(async move {
            let mut outcomes = [0_u64; 5];
            for n in 0..100 {
                let random = (caller * 100 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                let request = Request {
                    priority: [Priority::Low, Priority::Normal, Priority::High][(random % 3) as usize],
                    tenant: Some(format!("tenant {}", random % 7).into()),
                    deadline: Some(std::time::Instant::now() + Duration::from_millis(random % 20)),
                    bytes: Some(random % 3000),
                    ..Request::new(Act::Take(Duration::from_micros(random % 500)))
                };
                let patience = Duration::from_millis(random / 64 % 16);
                let call = service.ready().await.unwrap().call(request);
                let outcome = match tokio::time::timeout(patience, call).await {
                    Ok(Ok(_)) => 0,
                    Ok(Err(PriorityQueueError::Full { .. })) => 1,
                    Ok(Err(PriorityQueueError::Displaced { .. })) => 2,
                    Ok(Err(PriorityQueueError::Expired)) => 3,
                    Ok(Err(error)) => panic!("{error:?}"),
                    Err(_) => 4,
                };
                outcomes[outcome] += 1;
            }
            outcomes
        });
    }
    let mut outcomes = [0; 5];
    for one in tasks.join_all().await {
        outcomes.iter_mut().zip(one).for_each(|(sum, n)| *sum += n);
    }
    drop(service);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(outcomes.iter().sum::<u64>(), 6400);
    assert!(outcomes[0] > 0, "{outcomes:?}");
    let snapshot = layer.snapshot();
    // Whoever left may have been told just then.
    assert!(snapshot.rejected >= outcomes[1] && snapshot.displaced >= outcomes[2] && snapshot.expired >= outcomes[3]);
    assert_eq!(
        (snapshot.waiting, snapshot.waiting_bytes, snapshot.reserved, watch.in_use()),
        (0, 0, 0, 0),
        "{outcomes:?}"
    );
}
