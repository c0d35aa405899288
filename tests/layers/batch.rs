use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use proptest::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_test::task::spawn;
use tokio_util::sync::PollSemaphore;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::BatchLayer;
use tower_kernels::middleware::batch::{Batch, BatchError, BatchPolicy};
use tower_kernels::request::RequestContext;

use crate::support::probe::ProbeError;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Answer,
    Fail,
    FailAll,
    /// Answer all but the last.
    Forget,
    Panic,
    Never,
}

#[derive(Clone, Debug)]
struct Item {
    id: usize,
    key: Option<u8>,
    weight: u64,
    act: Act,
    deadline: Option<Instant>,
}

impl RequestContext for Item {
    fn deadline(&self) -> Option<std::time::Instant> {
        self.deadline.map(Instant::into_std)
    }
}

fn item(id: usize) -> Item {
    Item { id, key: Some(0), weight: 1, act: Act::Answer, deadline: None }
}

fn of(key: u8, id: usize) -> Item {
    Item { key: Some(key), ..item(id) }
}

fn acting(act: Act, id: usize) -> Item {
    Item { act, ..item(id) }
}

/// A service of batches with so many permits, each of which is held for 10 ms by a batch.
#[derive(Debug)]
struct Press {
    watch: Watch,
    semaphore: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Debug)]
struct Watch {
    places: Arc<Semaphore>,
    batches: Arc<Mutex<Vec<Vec<Item>>>>,
    /// Batches that were dropped before they had completed.
    cut_off: Arc<AtomicUsize>,
    is_broken: Arc<Mutex<bool>>,
}

impl Watch {
    /// The ids in each batch so far.
    fn ids(&self) -> Vec<Vec<usize>> {
        self.batches.lock().unwrap().iter().map(|batch| batch.iter().map(|item| item.id).collect()).collect()
    }

    fn cut_off(&self) -> usize {
        self.cut_off.load(Ordering::SeqCst)
    }
}

fn press(places: usize) -> (Press, Watch) {
    let places = Arc::new(Semaphore::new(places));
    let watch = Watch { places, batches: Arc::default(), cut_off: Arc::default(), is_broken: Arc::default() };
    (Press { semaphore: PollSemaphore::new(Arc::clone(&watch.places)), watch: watch.clone(), place: None }, watch)
}

impl Clone for Press {
    fn clone(&self) -> Self {
        Self { watch: self.watch.clone(), semaphore: self.semaphore.clone(), place: None }
    }
}

/// The id, and how many shared the batch.
type Answer = (usize, usize);

impl Service<Vec<Item>> for Press {
    type Response = Vec<Result<Answer, ProbeError>>;
    type Error = ProbeError;
    type Future = Pressing;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        if *self.watch.is_broken.lock().unwrap() {
            return Poll::Ready(Err(ProbeError(ErrorKind::Unavailable)));
        }
        if self.place.is_none() {
            self.place = ready!(self.semaphore.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Vec<Item>) -> Pressing {
        let place = self.place.take().expect("called without being polled ready");
        self.watch.batches.lock().unwrap().push(batch.clone());
        let sleep = Box::pin(tokio::time::sleep(10 * MS));
        Pressing { batch, sleep, place: Some(place), cut_off: Arc::clone(&self.watch.cut_off) }
    }
}

#[derive(Debug)]
struct Pressing {
    batch: Vec<Item>,
    sleep: Pin<Box<tokio::time::Sleep>>,
    place: Option<OwnedSemaphorePermit>,
    cut_off: Arc<AtomicUsize>,
}

impl Future for Pressing {
    type Output = Result<Vec<Result<Answer, ProbeError>>, ProbeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let has = |act| self.batch.iter().any(|item| item.act == act);
        let (never, panics, fails, forgets) = (has(Act::Never), has(Act::Panic), has(Act::FailAll), has(Act::Forget));
        if never {
            return Poll::Pending;
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.place = None;
        if panics {
            panic!("the press was told to panic");
        }
        if fails {
            return Poll::Ready(Err(ProbeError(ErrorKind::Overloaded)));
        }
        let len = self.batch.len();
        let answer = |item: &Item| match item.act {
            Act::Fail => Err(ProbeError(ErrorKind::InvalidArgument)),
            _ => Ok((item.id, len)),
        };
        Poll::Ready(Ok(self.batch.iter().take(len - usize::from(forgets)).map(answer).collect()))
    }
}

impl Drop for Pressing {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.cut_off.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Takes the key and the weight from the item.
#[derive(Clone, Debug)]
struct AsItSays;

impl BatchPolicy<Item> for AsItSays {
    type Key = u8;

    fn key(&self, item: &mut Item) -> Option<u8> {
        item.key
    }

    fn weight(&self, _: &u8, item: &Item) -> u64 {
        item.weight
    }

    fn max_in_flight(&self, key: &u8) -> usize {
        if *key == ONE_IN_FLIGHT { 1 } else { usize::MAX }
    }
}

/// A key whose calls follow each other.
const ONE_IN_FLIGHT: u8 = 255;

fn layer() -> BatchLayer<Item, AsItSays> {
    BatchLayer::new(4).with_policy(AsItSays).max_weight(100)
}

type Service_ = Batch<Press, Item, AsItSays>;

async fn ask(service: &Service_, item: Item) -> Result<Answer, BatchError<ProbeError>> {
    service.clone().oneshot(item).await
}

/// Calls without waiting for the response.
async fn send(
    service: &Service_,
    item: Item,
) -> tokio_test::task::Spawn<Pin<Box<dyn Future<Output = Result<Answer, BatchError<ProbeError>>> + Send>>> {
    let mut service = service.clone();
    let future = service.ready().await.unwrap().call(item);
    let mut task = spawn(future.boxed());
    assert!(task.poll().is_pending());
    task
}

/// Lets all tasks make progress, with no time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_service_is_called_at_once_and_by_its_caller() {
    let (press, watch) = press(1);
    let service = layer().layer(press);
    for id in 0..3 {
        let begun = Instant::now();
        assert_eq!(ask(&service, item(id)).await, Ok((id, 1)));
        assert_eq!(begun.elapsed(), 10 * MS, "what the press takes, and nothing more");
    }
    assert_eq!(watch.ids(), [[0], [1], [2]]);
    let idle = layer();
    let mut service = idle.layer(crate::batch::press(1).0);
    let called = service.ready().await.unwrap().call(item(0));
    assert_eq!(idle.snapshot().waiting, 0, "it does not wait");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "and nothing works on its behalf");
    drop(called);
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_while_the_inner_service_is_busy_share_a_batch() {
    let (press, watch) = press(1);
    let layer = layer();
    let service = layer.layer(press);
    let answers = join_all((0..8).map(|id| ask(&service, item(id)))).await;
    assert_eq!(watch.ids(), [vec![0], vec![1, 2, 3, 4], vec![5, 6, 7]]);
    assert_eq!(answers[4], Ok((4, 4)));
    let snapshot = layer.snapshot();
    assert_eq!((snapshot.waiting, snapshot.batches, snapshot.requests), (0, 2, 7));
    assert_eq!(service.level(), (0, 0));
    settle().await;
    assert_eq!(
        tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        0,
        "no request waits, and no task is left"
    );
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_key_share_a_call_and_the_oldest_goes_first() {
    let (press, watch) = press(1);
    let service = layer().layer(press);
    let items = [of(0, 0), of(1, 1), of(2, 2), of(1, 3), of(0, 4), of(2, 5), of(1, 6)];
    join_all(items.map(|item| ask(&service, item))).await;
    assert_eq!(watch.ids(), [vec![0], vec![1, 3, 6], vec![2, 5], vec![4]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_count_or_by_weight() {
    let (press, watch) = press(1);
    let service = layer().layer(press);
    let heavy = |id, weight| Item { weight, ..item(id) };
    // The last is too heavy for any batch: it is called by itself.
    let items = [item(0), heavy(1, 60), heavy(2, 40), heavy(3, 41), heavy(4, 59), heavy(5, 1), heavy(6, 101)];
    join_all(items.map(|item| ask(&service, item))).await;
    let mut batches = watch.ids();
    assert!(batches.contains(&vec![6]), "{batches:?}");
    batches.retain(|batch| *batch != [6]);
    assert_eq!(batches, [vec![0], vec![1, 2], vec![3, 4], vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_is_called_by_itself() {
    let (press, watch) = press(2);
    let service = layer().layer(press);
    let items = (0..6).map(|id| Item { key: None, ..item(id) });
    let answers = join_all(items.map(|item| ask(&service, item))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok((_, 1)))), "{answers:?}");
    assert_eq!(watch.ids().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_delay_counts_from_the_first_request_and_ends_when_the_batch_is_full() {
    let (press, watch) = press(2);
    let service = layer().max_delay(20 * MS).layer(press);
    let begun = Instant::now();
    let first = ask(&service, item(0));
    let second = async {
        tokio::time::sleep(15 * MS).await;
        ask(&service, item(1)).await
    };
    assert_eq!(futures::join!(first, second), (Ok((0, 2)), Ok((1, 2))));
    assert_eq!(begun.elapsed(), 30 * MS);

    let begun = Instant::now();
    join_all((2..6).map(|id| ask(&service, item(id)))).await;
    assert_eq!(begun.elapsed(), 10 * MS, "four are a batch");
    assert_eq!(watch.ids(), [vec![0, 1], vec![2, 3, 4, 5]]);
}

/// A batch whose delay has passed, and that waits for the inner service, is not delayed again.
#[tokio::test(start_paused = true)]
async fn a_delayed_batch_is_sent_once_however_often_calls_of_its_key_end() {
    let (press, watch) = press(2);
    let service = layer().max_in_flight(3).max_delay(5 * MS).layer(press);
    let calls = (0..20_usize).map(|id| {
        let service = &service;
        async move {
            tokio::time::sleep(3 * MS * (id as u32 / 2)).await;
            ask(service, item(id)).await
        }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    settle().await;
    let sent: Vec<usize> = watch.ids().concat();
    assert_eq!(sent, (0..20).collect::<Vec<_>>(), "each once, and in order");
    assert_eq!(service.level(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_limits_the_calls_in_flight_of_a_key() {
    for (key, expected) in [(ONE_IN_FLIGHT, vec![vec![0], vec![1, 2]]), (0, vec![vec![0], vec![1], vec![2]])] {
        let (press, watch) = press(3);
        let service = layer().layer(press);
        let responses = join_all((0..3).map(|id| ask(&service, of(key, id)))).await;
        assert!(responses.iter().all(Result::is_ok), "{responses:?}");
        assert_eq!(watch.ids(), expected, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_batches_are_in_flight_as_the_inner_service_is_ready_for_or_the_key_may_have() {
    for (in_flight, expected) in [(usize::MAX, 20), (2, 30)] {
        let (press, _) = press(3);
        let service = layer().max_in_flight(in_flight).layer(press);
        let begun = Instant::now();
        // One by one at first; then batches of four.
        join_all((0..11).map(|id| ask(&service, item(id)))).await;
        assert_eq!(begun.elapsed(), expected * MS, "{in_flight}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_at_its_limit_holds_up_no_other() {
    let (press, watch) = press(4);
    let service = layer().max_in_flight(1).layer(press);
    let stuck = send(&service, acting(Act::Never, 0)).await;
    let waits = send(&service, item(1)).await;
    assert_eq!(ask(&service, of(1, 2)).await, Ok((2, 1)));
    assert_eq!(watch.ids(), [[0], [2]]);
    drop((stuck, waits));
}

#[tokio::test(start_paused = true)]
async fn late_and_cancelled_requests_are_not_in_the_batch() {
    let (press, watch) = press(1);
    let layer = layer();
    let service = layer.layer(press);
    let running = send(&service, item(0)).await;
    let late = Item { deadline: Some(Instant::now() + 5 * MS), ..item(1) };
    let late = send(&service, late).await;
    let left = send(&service, item(2)).await;
    let stays = send(&service, item(3)).await;
    assert_eq!(layer.snapshot().waiting, 3);
    drop(left);
    assert_eq!(layer.snapshot().waiting, 2, "its permit is free at once");
    drop(running.into_inner().await);
    let error = late.into_inner().await.unwrap_err();
    assert_eq!((error.kind(), error), (ErrorKind::DeadlineExceeded, BatchError::Expired));
    assert_eq!(stays.into_inner().await, Ok((3, 1)));
    assert_eq!(watch.ids(), [[0], [3]]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_fails_alone_and_a_bad_batch_fails_all_with_the_same_meaning() {
    let (press, _) = press(1);
    let service = layer().layer(press);
    let answers = join_all([item(0), item(1), acting(Act::Fail, 2), item(3)].map(|item| ask(&service, item))).await;
    assert_eq!(answers[1..], [Ok((1, 3)), Err(BatchError::Inner(ProbeError(ErrorKind::InvalidArgument))), Ok((3, 3))]);

    let answers = join_all([item(0), item(1), acting(Act::FailAll, 2)].map(|item| ask(&service, item))).await;
    assert_eq!(answers[0], Ok((0, 1)));
    for answer in &answers[1..] {
        let error = answer.as_ref().unwrap_err();
        assert!(matches!(error, BatchError::Shared(_)), "{error:?}");
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, Some(Duration::from_secs(7))));
        assert_eq!(error.to_string(), ProbeError(ErrorKind::Overloaded).to_string());
    }

    let answers = join_all([item(0), item(1), acting(Act::Forget, 2)].map(|item| ask(&service, item))).await;
    assert_eq!(answers[1..], [Ok((1, 2)), Err(BatchError::MissingResponse)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_runs_until_all_its_requests_are_cancelled() {
    let (press, watch) = press(1);
    let service = layer().layer(press);
    let first = send(&service, item(0)).await;
    let mut others = vec![send(&service, acting(Act::Never, 1)).await];
    others.push(send(&service, item(2)).await);
    drop(first.into_inner().await);
    settle().await;
    assert_eq!(watch.ids(), [vec![0], vec![1, 2]]);
    others.pop();
    settle().await;
    assert_eq!((watch.cut_off(), service.level()), (0, (1, 0)));
    others.pop();
    settle().await;
    assert_eq!((watch.cut_off(), service.level()), (1, (0, 0)));
    assert_eq!(watch.places.available_permits(), 1);
    assert_eq!(ask(&service, item(3)).await, Ok((3, 1)));
}

#[tokio::test(start_paused = true)]
async fn all_waiting_requests_may_be_cancelled_before_the_inner_service_is_ready() {
    let (press, watch) = press(1);
    let layer = layer();
    let service = layer.layer(press);
    let stuck = send(&service, acting(Act::Never, 0)).await;
    let waiting = vec![send(&service, item(1)).await, send(&service, of(1, 2)).await, send(&service, item(3)).await];
    settle().await;
    assert_eq!((layer.snapshot().waiting, service.level()), (3, (1, 2)));
    drop(waiting);
    settle().await;
    assert_eq!((layer.snapshot().waiting, service.level()), (0, (1, 0)));
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "no task is left");
    drop(stuck);
    settle().await;
    assert_eq!((watch.ids().len(), watch.places.available_permits()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn if_a_task_ends_early_its_batch_fails_at_each_poll() {
    let (press, _) = press(1);
    let service = layer().layer(press);
    let first = send(&service, item(0)).await;
    let mut dies = vec![send(&service, acting(Act::Panic, 1)).await, send(&service, item(2)).await];
    let lives = send(&service, of(1, 3)).await;
    drop(first.into_inner().await);
    assert_eq!(lives.into_inner().await, Ok((3, 1)), "another batch has nothing to do with it");
    for task in &mut dies {
        for _ in 0..3 {
            assert_eq!(task.poll(), Poll::Ready(Err(BatchError::Stopped)));
        }
    }
    assert_eq!(ask(&service, item(4)).await, Ok((4, 1)));
    assert_eq!(service.level(), (0, 0));
}

#[test]
fn if_the_runtime_ends_all_waiting_requests_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (press, _) = press(1);
    let layer = layer();
    let service = layer.layer(press);
    let mut waiting = runtime.block_on(async {
        let first = send(&service, acting(Act::Never, 0)).await;
        let waiting = vec![send(&service, item(1)).await, send(&service, of(1, 2)).await];
        settle().await;
        drop(first);
        // One batch runs now, the other waits.
        settle().await;
        waiting
    });
    drop(runtime);
    for task in &mut waiting {
        assert!(task.is_woken());
        for _ in 0..2 {
            assert_eq!(task.poll(), Poll::Ready(Err(BatchError::Stopped)));
        }
    }
    assert_eq!((layer.snapshot().waiting, service.level()), (0, (0, 0)));
    // Where there is no runtime at all there is no task.
    let busy = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = busy.block_on(send(&service, acting(Act::Never, 3)));
    let Poll::Ready(Err(error)) = spawn(ask(&service, item(4))).poll() else { panic!("there is no task to wait for") };
    assert_eq!((error.kind(), error), (ErrorKind::Unavailable, BatchError::Stopped));
    drop(first);
    // And the next runtime is as good as the first.
    assert_eq!(busy.block_on(ask(&service, item(5))), Ok((5, 1)));
}

#[tokio::test(start_paused = true)]
async fn if_readiness_fails_all_waiting_and_further_requests_fail() {
    let (press, watch) = press(1);
    let service = layer().layer(press);
    let first = send(&service, acting(Act::Never, 0)).await;
    let waiting = vec![send(&service, item(1)).await, send(&service, of(1, 2)).await];
    *watch.is_broken.lock().unwrap() = true;
    drop(first);
    for task in waiting {
        let error = task.into_inner().await.unwrap_err();
        assert!(matches!(error, BatchError::Shared(_)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let error = service.clone().ready().await.map(drop).unwrap_err();
    assert_eq!(error, BatchError::Inner(ProbeError(ErrorKind::Unavailable)));
}

#[tokio::test(start_paused = true)]
async fn the_service_is_not_ready_at_capacity() {
    let (press, _) = press(1);
    let layer = layer().capacity(2);
    let service = layer.layer(press);
    let _running = send(&service, acting(Act::Never, 0)).await;
    let waiting = vec![send(&service, item(1)).await, send(&service, of(1, 2)).await];
    let mut next = service.clone();
    let mut ready = spawn(next.ready());
    assert!(ready.poll().is_pending());
    drop(waiting);
    assert!(ready.is_woken());
    assert!(matches!(ready.poll(), Poll::Ready(Ok(_))));
    drop(ready);
    assert_eq!(layer.snapshot().waiting, 1, "a service that is ready holds a permit");
    drop(next);
    assert_eq!(layer.snapshot().waiting, 0);
}

/// Tokio's cooperative budget is 128 for each poll of a task; it is no sign of overload.
#[tokio::test(start_paused = true)]
async fn every_request_of_a_burst_gets_its_response() {
    const BURST: usize = 10_000;
    let (press, watch) = press(4);
    let layer = BatchLayer::new(256).with_policy(AsItSays).capacity(1000);
    let service = layer.layer(press);
    let answers = join_all((0..BURST).map(|id| ask(&service, of((id % 3) as u8, id)))).await;
    assert!(answers.iter().enumerate().all(|(id, answer)| matches!(answer, Ok((of, _)) if *of == id)));
    let batches = watch.ids();
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), BURST);
    assert!(batches.len() < BURST / 50, "{} batches", batches.len());
    assert_eq!((layer.snapshot().waiting, service.level()), (0, (0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_request_of_a_burst_from_many_threads_gets_its_response() {
    let (press, watch) = press(2);
    let layer = BatchLayer::new(64).with_policy(AsItSays).max_in_flight(2);
    let service = layer.layer(press);
    let tasks: Vec<_> = (0..5_000_usize)
        .map(|id| {
            let service = service.clone();
            tokio::spawn(async move {
                // Every seventh is cancelled at some point.
                let call = ask(&service, of((id % 2) as u8, id));
                match id % 7 {
                    0 => tokio::time::timeout(Duration::from_micros(id as u64 * 10), call).await.ok(),
                    _ => Some(call.await),
                }
            })
        })
        .collect();
    for (id, task) in tasks.into_iter().enumerate() {
        let answer =
            tokio::time::timeout(Duration::from_secs(60), task).await.expect("left without an answer").unwrap();
        assert!(answer.is_none_or(|answer| matches!(answer, Ok((of, _)) if of == id)));
    }
    assert!(watch.batches.lock().unwrap().iter().all(|batch| batch.len() <= 64));
    let begun = Instant::now();
    while service.level() != (0, 0) || watch.places.available_permits() != 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{service:?}");
        tokio::time::sleep(MS).await;
    }
}

/// When a request arrives, what it is, and when it is cancelled.
#[derive(Clone, Debug)]
struct Arrival {
    at: u64,
    item: Item,
    patience: Option<u64>,
    deadline: Option<u64>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let act =
        prop_oneof![12 => Just(Act::Answer), 1 => Just(Act::Fail), 1 => Just(Act::FailAll), 1 => Just(Act::Forget)];
    let key = prop_oneof![1 => Just(None), 8 => (0_u8..3).prop_map(Some)];
    let weight = prop_oneof![10 => 0_u64..50, 1 => 90_u64..130];
    let soon = || proptest::option::weighted(0.2, 0_u64..40);
    let arrival =
        (0_u64..60, act, key, weight, soon(), soon()).prop_map(|(at, act, key, weight, patience, deadline)| Arrival {
            at,
            item: Item { key, weight, act, ..item(0) },
            patience,
            deadline,
        });
    proptest::collection::vec(arrival, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_request_has_one_outcome_and_every_batch_keeps_the_limits(
        arrivals in arrivals(), places in 1_usize..4, in_flight in 1_usize..4, delay in 0_u64..15, capacity in 1_usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (press, watch) = press(places);
            let layer = layer().max_in_flight(in_flight).max_delay(delay as u32 * MS).capacity(capacity);
            let service = layer.layer(press);
            let begun = Instant::now();
            let calls = arrivals.iter().enumerate().map(|(id, arrival)| {
                let service = service.clone();
                async move {
                    tokio::time::sleep_until(begun + arrival.at as u32 * MS).await;
                    let deadline = arrival.deadline.map(|after| Instant::now() + after as u32 * MS);
                    let call = ask(&service, Item { id, deadline, ..arrival.item.clone() });
                    match arrival.patience {
                        Some(patience) => tokio::time::timeout(patience as u32 * MS, call).await.ok(),
                        None => Some(call.await),
                    }
                }
            });
            let outcomes = tokio::time::timeout(Duration::from_secs(60), join_all(calls)).await.expect("nobody is left");
            settle().await;
            let batches = watch.batches.lock().unwrap().clone();
            for batch in &batches {
                prop_assert!(batch.len() <= 4);
                prop_assert!(batch.len() == 1 || batch.iter().map(|item| item.weight).sum::<u64>() <= 100);
                prop_assert!(batch.iter().all(|item| item.key == batch[0].key));
                prop_assert!(batch.len() == 1 || batch[0].key.is_some());
            }
            let mut sent: Vec<usize> = batches.iter().flatten().map(|item| item.id).collect();
            sent.sort_unstable();
            prop_assert!(sent.windows(2).all(|pair| pair[0] < pair[1]), "sent twice: {sent:?}");
            for (id, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    None => {}
                    Some(Ok((of, _))) => prop_assert_eq!((*of, sent.contains(&id)), (id, true)),
                    Some(Err(BatchError::Expired)) => prop_assert!(!sent.contains(&id)),
                    Some(Err(_)) => prop_assert!(sent.contains(&id)),
                }
            }
            prop_assert_eq!((layer.snapshot().waiting, service.level()), (0, (0, 0)));
            prop_assert_eq!(watch.places.available_permits(), places);
            Ok(())
        })?;
    }
}
