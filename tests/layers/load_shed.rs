use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{ConcurrencyLayer, LoadShedLayer, PriorityQueueLayer};
use tower_kernels::middleware::load_shed::LoadShedError;
use tower_kernels::request::{Priority, RequestContext, ResponseContext};

use crate::support::probe::{Act, ProbeError, Request, probe};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A request that takes so long by itself.
#[derive(Clone, Debug)]
struct Job {
    takes: Duration,
    priority: Priority,
    deadline: Option<std::time::Instant>,
    operation: &'static str,
}

impl Job {
    fn new(takes: Duration) -> Self {
        Self { takes, priority: Priority::Normal, deadline: None, operation: "job" }
    }

    fn of(priority: Priority, takes: Duration) -> Self {
        Self { priority, ..Self::new(takes) }
    }

    fn within(self, time: Duration) -> Self {
        Self { deadline: Some((Instant::now() + time).into_std()), ..self }
    }

    fn called(self, operation: &'static str) -> Self {
        Self { operation, ..self }
    }
}

impl RequestContext for Job {
    fn operation(&self) -> &str {
        self.operation
    }
    fn deadline(&self) -> Option<std::time::Instant> {
        self.deadline
    }
    fn priority(&self) -> Priority {
        self.priority
    }
}

#[derive(Debug)]
struct Done;

impl ResponseContext for Done {}

/// Runs so many jobs at a time; the others wait for its readiness.
fn workers(
    places: usize,
) -> impl Service<Job, Response = Done, Error = std::convert::Infallible, Future: Send> + Clone + Send + 'static {
    ConcurrencyLayer::new(places).layer(service_fn(|job: Job| async move {
        sleep(job.takes).await;
        Ok(Done)
    }))
}

fn exactly(job: &Job) -> Duration {
    job.takes
}

fn late<E: std::fmt::Debug>(result: Result<Done, LoadShedError<E>>) -> (Duration, Duration) {
    let error = result.unwrap_err();
    let LoadShedError::Late { predicted_wait, retry_after } = error else { panic!("{error:?}") };
    (predicted_wait, retry_after)
}

// When the inner service is not ready.

#[tokio::test(start_paused = true)]
async fn a_call_of_a_full_service_is_rejected_at_once_and_keeps_no_permit() {
    let (probe, watch) = probe(1);
    let layer = LoadShedLayer::new();
    let service = layer.layer(ConcurrencyLayer::new(1).layer(probe));
    let running = tokio::spawn(service.clone().oneshot(Request::new(Act::Take(SECOND))));
    tokio::task::yield_now().await;
    let mut kept = service.clone();
    let begun = Instant::now();
    for shed in 1..=3 {
        let error = kept.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap_err();
        assert_eq!(error, LoadShedError::NotReady);
        assert_eq!((error.kind(), layer.snapshot().rejected), (ErrorKind::Overloaded, shed));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    running.await.unwrap().unwrap();
    // The service has left the queue of the inner one: the permit is free.
    assert_eq!(watch.in_use(), 0);
    service.oneshot(Request::new(Act::Answer)).await.unwrap();
    kept.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap();
    assert_eq!(layer.snapshot().rejected, 3);
}

/// Rejected calls of a burst from one task.
async fn rejected_of_10_000<S>(service: S) -> usize
where
    S: Service<Request, Response = ()> + Clone,
{
    let mut rejected = 0;
    for _ in 0..10_000 {
        let mut service = service.clone();
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))));
        let call = tokio::task::coop::unconstrained(service.call(Request::new(Act::Answer)));
        rejected += usize::from(matches!(call.now_or_never(), Some(Err(_))));
    }
    rejected
}

#[tokio::test]
async fn an_exhausted_budget_is_not_overload_as_it_is_to_towers_layer() {
    let idle = service_fn(|_: Request| std::future::ready(Ok::<_, ProbeError>(())));
    // There is room for all of them, and each reservation takes from the budget.
    let buffer = || tower::buffer::Buffer::new(idle, 10_000);
    let theirs = tokio::spawn(rejected_of_10_000(tower::load_shed::LoadShed::new(buffer()))).await.unwrap();
    assert_eq!(theirs, 10_000 - 128, "tower's layer has changed, and the documentation has to");
    let ours = tokio::spawn(rejected_of_10_000(LoadShedLayer::new().layer(buffer()))).await.unwrap();
    assert_eq!(ours, 0);
}

#[tokio::test]
async fn an_exhausted_budget_is_not_overload_to_a_prediction_either() {
    let idle = service_fn(|job: Job| {
        assert!(job.takes.is_zero());
        std::future::ready(Ok::<_, ProbeError>(Done))
    });
    let layer = LoadShedLayer::predicting(Duration::from_nanos(1)).parallelism(1);
    let service = layer.layer(ConcurrencyLimit::new(idle, 10_000));
    let answered = tokio::spawn(async move {
        let mut answered = 0;
        for _ in 0..10_000 {
            let call = service.clone().oneshot(Job::new(Duration::ZERO));
            answered += usize::from(tokio::task::coop::unconstrained(call).now_or_never().is_some_and(|r| r.is_ok()));
        }
        answered
    });
    assert_eq!((answered.await.unwrap(), layer.snapshot().rejected), (10_000, 0));
}

// When there is no time.

#[tokio::test(start_paused = true)]
async fn a_call_that_would_miss_its_deadline_is_rejected_at_once_with_a_retry_after() {
    let layer = LoadShedLayer::predicting(SECOND * 60).parallelism(2).estimate(exactly);
    let service = layer.layer(workers(2));
    let call = |job: Job| tokio::spawn(service.clone().oneshot(job));
    let high = |seconds| Job::of(Priority::High, SECOND * seconds);
    let ahead: Vec<_> = (0..4).map(|_| call(high(2))).collect();
    tokio::task::yield_now().await;
    // 8 s of work for two.
    assert_eq!((layer.snapshot().predicted_wait, layer.snapshot().in_flight), (SECOND * 4, 4));
    let begun = Instant::now();
    let rejected = call(high(1).within(SECOND * 9 / 2)).await.unwrap();
    assert_eq!(late(rejected), (SECOND * 4, SECOND / 2));
    assert_eq!((begun.elapsed(), layer.snapshot().rejected_by_priority[Priority::High as usize]), (Duration::ZERO, 1));
    // After that time it is admitted.
    sleep(SECOND / 2).await;
    for call in ahead {
        call.await.unwrap().unwrap();
    }
    call(high(1).within(SECOND * 9 / 2)).await.unwrap().unwrap();
    // A call longer than its time left is rejected while anything else runs.
    let other = call(high(1));
    tokio::task::yield_now().await;
    let (wait, _) = late(call(high(3).within(SECOND * 2)).await.unwrap());
    assert_eq!(wait, Duration::ZERO);
    other.await.unwrap().unwrap();
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().predicted_wait), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn lower_priorities_are_rejected_first_with_deadlines_and_without() {
    for deadline in [None, Some(SECOND * 11)] {
        let wait = if deadline.is_some() { SECOND * 100 } else { SECOND * 10 };
        let layer = LoadShedLayer::predicting(wait).parallelism(1).max_wait_fractions(0.3, 0.6).estimate(exactly);
        let mut service = layer.layer(workers(1));
        let mut kept = Vec::new();
        let mut admitted = Vec::new();
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Low, Priority::Normal] {
            let mut number = 0;
            for _ in 0..20 {
                let mut job = Job::of(priority, SECOND);
                if let Some(deadline) = deadline {
                    job = job.within(deadline);
                }
                let mut call = Box::pin(service.ready().await.unwrap().call(job));
                match call.as_mut().now_or_never() {
                    None => {
                        kept.push(call);
                        number += 1;
                    }
                    Some(rejected) => drop(late(rejected)),
                }
            }
            admitted.push(number);
        }
        // One runs; 3, 6 and 10 s of work ahead are allowed.
        assert_eq!(admitted, [4, 3, 4, 0, 0], "deadline {deadline:?}");
        let shed = layer.snapshot().rejected_by_priority;
        assert_eq!((shed, layer.snapshot().rejected), ([36, 37, 16], 89));
        drop(kept);
        assert_eq!((layer.snapshot().in_flight, layer.snapshot().predicted_wait), (0, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_with_the_service_that_was_polled_and_keeps_its_position() {
    let (probe, watch) = probe(1);
    let layer = LoadShedLayer::predicting(SECOND * 60).parallelism(1);
    let mut service = layer.layer(probe);
    let first = service.ready().await.unwrap().call(Request::new(Act::Take(SECOND)));
    let second = service.ready().await.unwrap().call(Request::new(Act::Take(SECOND)));
    let third = service.ready().await.unwrap().call(Request::new(Act::Answer));
    let begun = Instant::now();
    // The last one is polled first, and is served last all the same.
    let (third, first, second) = tokio::join!(
        third.map(|result| (result.is_ok(), begun.elapsed().as_secs())),
        first.map(|result| (result.is_ok(), begun.elapsed().as_secs())),
        second.map(|result| (result.is_ok(), begun.elapsed().as_secs())),
    );
    assert_eq!((first, second, third), ((true, 1), (true, 2), (true, 2)));
    assert_eq!((watch.calls(), watch.in_use(), layer.snapshot().in_flight), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_admitted_by_a_wrong_estimate_is_rejected_when_it_has_waited_too_long() {
    let layer = LoadShedLayer::predicting(SECOND * 2).parallelism(1).estimate(|_: &Job| MILLI);
    let service = layer.layer(workers(1));
    let running = tokio::spawn(service.clone().oneshot(Job::new(SECOND * 3600)));
    tokio::task::yield_now().await;
    for (time, expected) in [(SECOND * 60, 2), (SECOND, 1)] {
        let begun = Instant::now();
        late(service.clone().oneshot(Job::new(MILLI).within(time)).await);
        assert_eq!((begun.elapsed().as_secs(), layer.snapshot().in_flight), (expected, 1));
    }
    running.abort();
    let _ = running.await;
    assert_eq!(layer.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_keeps_the_readiness_of_the_inner_service() {
    let (probe, watch) = probe(2);
    let by_bytes = |request: &Request| Duration::from_secs(request.bytes.unwrap_or(0));
    let mut service = LoadShedLayer::predicting(SECOND).parallelism(1).estimate(by_bytes).layer(probe);
    let request = |bytes, act| Request { bytes: Some(bytes), ..Request::new(act) };
    let running = service.ready().await.unwrap().call(request(100, Act::Never));
    assert!(service.ready().await.unwrap().call(request(1, Act::Answer)).await.is_err());
    assert_eq!((watch.in_use(), watch.calls()), (2, 1));
    drop(running);
    service.ready().await.unwrap().call(request(1, Act::Answer)).await.unwrap();
    assert_eq!((watch.in_use(), watch.calls()), (0, 2));
}

// What is learned.

#[tokio::test(start_paused = true)]
async fn how_long_calls_take_is_learned_for_each_operation() {
    let layer = LoadShedLayer::predicting(SECOND * 60).parallelism(1);
    let service = layer.layer(workers(1));
    for _ in 0..3 {
        service.clone().oneshot(Job::new(SECOND).called("slow")).await.unwrap();
        service.clone().oneshot(Job::new(MILLI).called("quick")).await.unwrap();
    }
    let running = tokio::spawn(service.clone().oneshot(Job::new(SECOND).called("slow")));
    tokio::task::yield_now().await;
    assert_eq!(layer.snapshot().predicted_wait, SECOND);
    // With 1 s ahead 1.5 s are enough for one and not for the other, of what a normal priority may use.
    late(service.clone().oneshot(Job::new(SECOND).called("slow").within(SECOND * 3 / 2)).await);
    service.clone().oneshot(Job::new(MILLI).called("quick").within(SECOND * 3 / 2)).await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_estimate_that_was_too_high_does_not_lock_an_operation_out() {
    let layer = LoadShedLayer::predicting(SECOND * 60).parallelism(4);
    let service = layer.layer(workers(4));
    // The first call took 10 s; from then on it is 10 ms, and nobody waits for longer than 1 s.
    service.clone().oneshot(Job::new(SECOND * 10).called("cold")).await.unwrap();
    let _busy = tokio::spawn(service.clone().oneshot(Job::new(SECOND * 3600).called("busy")));
    tokio::task::yield_now().await;
    let mut rejected = 0;
    while service.clone().oneshot(Job::new(MILLI * 10).called("cold").within(SECOND)).await.is_err() {
        rejected += 1;
        assert!(rejected < 100, "locked out");
    }
    assert!((50..100).contains(&rejected), "{rejected}");
    let mut answered = 0;
    for _ in 0..100 {
        answered +=
            usize::from(service.clone().oneshot(Job::new(MILLI * 10).called("cold").within(SECOND)).await.is_ok());
    }
    assert_eq!(answered, 100);
}

#[tokio::test(start_paused = true)]
async fn wrong_estimates_are_corrected() {
    // It says a tenth of what calls take.
    let layer = LoadShedLayer::predicting(SECOND * 60).parallelism(1).estimate(|job: &Job| job.takes / 10);
    let service = layer.layer(workers(1));
    for _ in 0..60 {
        service.clone().oneshot(Job::new(SECOND)).await.unwrap();
    }
    let running = tokio::spawn(service.clone().oneshot(Job::new(SECOND)));
    tokio::task::yield_now().await;
    let wait = layer.snapshot().predicted_wait.as_secs_f64();
    assert!((0.9..=1.0).contains(&wait), "{wait}");
    running.await.unwrap().unwrap();
}

/// Jobs of 100 ms each arrive at twice what `places` can do, all with a second to live; how many are in time, how many
/// are rejected and how many are late.
async fn twice_the_capacity(
    layer: LoadShedLayer<tower_kernels::middleware::load_shed::Predicted>,
    places: usize,
) -> [usize; 3] {
    let service = layer.layer(workers(places));
    let outcomes: Arc<[AtomicUsize; 3]> = Arc::default();
    let mut calls = Vec::new();
    for _ in 0..400 * places {
        let (service, outcomes) = (service.clone(), Arc::clone(&outcomes));
        calls.push(tokio::spawn(async move {
            let job = Job::of(Priority::High, MILLI * 100).within(SECOND);
            let outcome = match tokio::time::timeout(SECOND, service.oneshot(job)).await {
                Ok(Ok(_)) => 0,
                Ok(Err(_)) => 1,
                Err(_) => 2,
            };
            outcomes[outcome].fetch_add(1, Ordering::SeqCst);
        }));
        sleep(MILLI * 50 / places as u32).await;
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!((layer.snapshot().in_flight, layer.snapshot().predicted_wait), (0, Duration::ZERO));
    [0, 1, 2].map(|outcome| outcomes[outcome].load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn at_twice_the_capacity_nearly_all_admitted_calls_complete_in_time() {
    for places in [1, 4] {
        for given in [true, false] {
            let mut layer = LoadShedLayer::predicting(SECOND * 10);
            if given {
                layer = layer.parallelism(places);
            }
            let [in_time, rejected, late] = twice_the_capacity(layer.clone(), places).await;
            let total = 400 * places;
            // Half of it is what can be done. What has to be learned is learned from the first that are late.
            let (least, most) = if given { (45, 5) } else { (40, 10) };
            let said = format!(
                "{in_time} of {total} in time, {rejected} rejected, {late} late; {places} places, given {given}"
            );
            assert!(in_time * 100 >= total * least && late * 100 <= total * most, "{said}");
            let known = layer.snapshot().parallelism;
            assert!(known.abs_diff(places) <= 1, "{known} for {places}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_queue_less_urgent_calls_are_not_ahead() {
    for by_priority in [true, false] {
        let mut layer = LoadShedLayer::predicting(SECOND * 60).parallelism(1);
        if by_priority {
            layer = layer.by_priority();
        }
        let layer = layer.estimate(exactly);
        let service = layer.layer(PriorityQueueLayer::new(100).layer(workers(1)));
        let ahead: Vec<_> =
            (0..10).map(|_| tokio::spawn(service.clone().oneshot(Job::of(Priority::Low, SECOND)))).collect();
        tokio::task::yield_now().await;
        let urgent = |time| service.clone().oneshot(Job::of(Priority::High, SECOND).within(time));
        // One runs, of which half a second is expected to be left, and is.
        sleep(SECOND / 2).await;
        let answered = urgent(SECOND * 2).await.is_ok();
        assert_eq!(answered, by_priority);
        assert_eq!(layer.snapshot().rejected_by_priority[Priority::High as usize], u64::from(!by_priority));
        // There is no time for two, though, nor for itself alone.
        assert!(urgent(SECOND * 3 / 2 - MILLI).await.is_err());
        for call in ahead {
            call.await.unwrap().unwrap();
        }
        assert_eq!((layer.snapshot().in_flight, layer.snapshot().predicted_wait), (0, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_may_wait_longer_than_a_standing_queue() {
    let layer = LoadShedLayer::predicting(SECOND * 2).parallelism(1).estimate(exactly);
    let service = layer.layer(workers(1));
    let call = |priority| tokio::spawn(service.clone().oneshot(Job::of(priority, MILLI * 100)));
    // 16 are 1.6 s, which is what those of normal priority may wait.
    let burst: Vec<_> = (0..17).map(|_| call(Priority::Normal)).collect();
    for one in burst {
        one.await.unwrap().unwrap();
    }
    assert_eq!(layer.snapshot().rejected, 0);
    // Twice as many as can be done, for a while.
    let mut calls = Vec::new();
    for _ in 0..200 {
        calls.push(call(Priority::Normal));
        sleep(MILLI * 50).await;
    }
    let wait = layer.snapshot().predicted_wait;
    assert!(wait > MILLI * 600 && wait <= MILLI * 900, "{wait:?}");
    // That does not apply to high priority.
    (0..5).for_each(|_| calls.push(call(Priority::High)));
    tokio::task::yield_now().await;
    assert_eq!(layer.snapshot().rejected_by_priority[Priority::High as usize], 0);
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap().is_ok());
    }
    // The worker was never idle.
    assert!(answered >= 100 + 8, "{answered}");
    let burst: Vec<_> = (0..17).map(|_| call(Priority::Normal)).collect();
    for one in burst {
        one.await.unwrap().unwrap();
    }
}

#[test]
fn invalid_fractions_panic() {
    for (low, normal) in [(-0.1, 0.5), (0.5, 1.1), (f64::NAN, 0.5)] {
        std::panic::catch_unwind(|| LoadShedLayer::predicting(SECOND).max_wait_fractions(low, normal)).unwrap_err();
    }
    assert_eq!(LoadShedLayer::predicting(SECOND).parallelism(0).snapshot().parallelism, 1);
}

#[tokio::test(start_paused = true)]
async fn a_configured_timeout_is_a_deadline() {
    let layer = LoadShedLayer::predicting(SECOND * 5).parallelism(1).timeout(SECOND).estimate(exactly);
    let service = layer.layer(workers(1));
    let begun = Instant::now();
    let high = |millis| Job::of(Priority::High, MILLI * millis);
    let calls = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(high(400))));
    tokio::task::yield_now().await;
    // 800 ms are ahead of it, so 200 are left for itself.
    let (wait, retry_after) = late(service.clone().oneshot(high(400)).await);
    assert_eq!((wait, retry_after, begun.elapsed()), (MILLI * 800, MILLI * 200, Duration::ZERO));
    // Its own deadline is earlier, or later than the timeout.
    late(service.clone().oneshot(high(150).within(MILLI * 900)).await);
    late(service.clone().oneshot(high(300).within(SECOND * 3)).await);
    service.clone().oneshot(high(150)).await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}
