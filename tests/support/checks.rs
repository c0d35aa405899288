//! One function for each item of the contract.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};

use super::wakes::Wakes;

/// A factory of services under test. All that it makes share exactly one place to run.
pub(crate) trait Subject {
    type Request: Send + 'static;
    type Service: Service<Self::Request, Error: Debug + Send, Response: Debug + Send, Future: Send>
        + Clone
        + Debug
        + Send
        + Sync
        + 'static;

    fn service(&self) -> Self::Service;
    /// A request that is answered soon.
    fn quick(&self) -> Self::Request;
    /// A request that is never answered.
    fn endless(&self) -> Self::Request;
    /// A request that fails while it runs.
    fn failing(&self) -> Self::Request;
    /// How many places are reserved or in use, gauges of the service under test included.
    fn in_use(&self) -> usize;
}

/// Waits until no place is in use. Work on other threads may take a moment to stop.
async fn free(subject: &impl Subject) {
    let begun = Instant::now();
    while subject.in_use() != 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} places are still in use", subject.in_use());
        std::thread::sleep(Duration::from_micros(100));
        tokio::task::yield_now().await;
    }
}

/// Polls once, with a waker that counts.
macro_rules! poll_once {
    ($future:expr) => {{
        let (wakes, waker) = Wakes::new();
        let polled = $future.poll(&mut Context::from_waker(&waker));
        (polled, wakes)
    }};
}

fn poll_ready<S: Service<R>, R>(service: &mut S) -> (Poll<Result<(), S::Error>>, std::sync::Arc<Wakes>) {
    let (wakes, waker) = Wakes::new();
    (service.poll_ready(&mut Context::from_waker(&waker)), wakes)
}

pub(crate) async fn polled_ready_twice_it_reserves_once(subject: impl Subject) {
    let mut service = subject.service();
    service.ready().await.unwrap();
    assert_eq!(subject.in_use(), 1);
    // There is one place, so a second reservation could not be made.
    assert!(matches!(poll_ready(&mut service).0, Poll::Ready(Ok(()))));
    assert_eq!(subject.in_use(), 1);
    service.call(subject.quick()).await.unwrap();
    free(&subject).await;
}

pub(crate) async fn a_clone_starts_without_readiness(subject: impl Subject) {
    let mut service = subject.service();
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert_eq!(subject.in_use(), 1);
    assert!(poll_ready(&mut clone).0.is_pending());
    drop(clone);
    service.call(subject.quick()).await.unwrap();
    free(&subject).await;
}

pub(crate) async fn ready_and_dropped_uncalled_gives_the_place_back(subject: impl Subject) {
    let mut service = subject.service();
    service.ready().await.unwrap();
    drop(service);
    free(&subject).await;
}

pub(crate) async fn a_future_dropped_unpolled_gives_the_place_back(subject: impl Subject) {
    let mut service = subject.service();
    let future = service.ready().await.unwrap().call(subject.endless());
    drop(future);
    free(&subject).await;
}

pub(crate) async fn a_future_dropped_after_one_poll_gives_the_place_back(subject: impl Subject) {
    let mut service = subject.service();
    {
        let mut future = pin!(service.ready().await.unwrap().call(subject.endless()));
        assert!(poll_once!(future.as_mut()).0.is_pending());
        assert_eq!(subject.in_use(), 1);
    }
    free(&subject).await;
}

pub(crate) async fn an_answer_gives_the_place_back_before_the_future_is_dropped(subject: impl Subject) {
    let mut service = subject.service();
    let mut future = pin!(service.ready().await.unwrap().call(subject.quick()));
    future.as_mut().await.unwrap();
    free(&subject).await;
}

pub(crate) async fn a_failure_gives_the_place_back(subject: impl Subject) {
    let mut service = subject.service();
    let mut future = pin!(service.ready().await.unwrap().call(subject.failing()));
    future.as_mut().await.unwrap_err();
    free(&subject).await;
}

/// A service of which only one clone can be ready, and which panics when another is called.
pub(crate) async fn the_service_that_was_polled_ready_is_the_one_that_is_called(subject: impl Subject) {
    let mut service = subject.service();
    for _ in 0..3 {
        service.ready().await.unwrap().call(subject.quick()).await.unwrap();
    }
    free(&subject).await;
}

pub(crate) async fn full_is_pending_with_a_waker_and_without_waking_itself(subject: impl Subject) {
    let mut holder = subject.service();
    holder.ready().await.unwrap();

    let mut next = holder.clone();
    let (polled, wakes) = poll_ready(&mut next);
    assert!(polled.is_pending());
    std::thread::sleep(Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert_eq!(wakes.count(), 0, "it woke itself with nothing to do");

    drop(holder);
    free_to_wake(&wakes).await;
    next.ready().await.unwrap();
    drop(next);
    free(&subject).await;
}

/// Waits for the wake that a freed place must bring.
async fn free_to_wake(wakes: &Wakes) {
    let begun = Instant::now();
    while wakes.count() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "pending without a waker: nobody was woken");
        std::thread::sleep(Duration::from_micros(100));
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn waiting_for_an_answer_does_not_wake_itself(subject: impl Subject) {
    let mut service = subject.service();
    {
        let mut future = pin!(service.ready().await.unwrap().call(subject.endless()));
        let (polled, wakes) = poll_once!(future.as_mut());
        assert!(polled.is_pending());
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert_eq!(wakes.count(), 0);
    }
    free(&subject).await;
}

pub(crate) async fn it_serves_after_everything_was_dropped(subject: impl Subject) {
    for _ in 0..3 {
        let mut service = subject.service();
        drop(service.ready().await.unwrap().call(subject.endless()));
        free(&subject).await;
        service.ready().await.unwrap();
        drop(service);
        free(&subject).await;
    }
    subject.service().oneshot(subject.quick()).await.unwrap();
    free(&subject).await;
}

/// `Send`, `Sync` and `Clone` are bounds of [`Subject`]; here they are made use of.
pub(crate) async fn it_crosses_threads(subject: impl Subject) {
    let service = subject.service();
    let (request, other) = (subject.quick(), service.clone());
    tokio::spawn(async move { drop(service.oneshot(request).await.unwrap()) }).await.unwrap();
    tokio::spawn(other.oneshot(subject.quick())).await.unwrap().unwrap();
    free(&subject).await;
}
