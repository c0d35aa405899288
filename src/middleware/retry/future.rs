use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use super::policy::{Policy, RetryPermit};
use crate::error::AnyError;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::derive_debug;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::{RequestContext, ResponseContext};

/// Response future of [`Retry`](super::Retry).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the call is retried.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
    /// `None` if the call must not be retried. Boxed, as those calls would have the room for it too.
    retries: Option<Box<Retries<S, R>>>,
}

derive_debug!(ResponseFuture::<S, R> { retries } where S: Service<R>);

/// What further attempts need.
pub(super) struct Retries<S: Service<R>, R> {
    source: CloneSource<S>,
    request: R,
    attempts: u32,
    policy: Arc<Policy>,
    /// The last attempt, if another is to follow.
    failed: Option<Failed<S, R>>,
}

derive_debug!(Retries::<S, R> { attempts, policy } where S: Service<R>);

impl<S: Service<R>, R> Retries<S, R> {
    pub(super) fn new(source: CloneSource<S>, request: R, policy: Arc<Policy>) -> Self {
        Self { source, request, attempts: 1, policy, failed: None }
    }
}

impl<S: Service<R>, R: Clone> Retries<S, R> {
    /// Returns the request for the next attempt. The last one needs no copy.
    fn next_request(this: &mut Option<Box<Self>>) -> R {
        let retries = this.as_ref().expect(COMPLETED);
        if retries.attempts < retries.policy.max_attempts {
            return retries.request.clone();
        }
        this.take().expect(COMPLETED).request
    }
}

/// `Call`, and for each retry `Backoff`, `AwaitReady` and `Call` again.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    Call {
        #[pin]
        future: S::Future,
    },
    // Boxed, as few calls are retried and every future would have the room for it.
    Backoff {
        sleep: Pin<Box<Sleep>>,
    },
    AwaitReady {
        service: Box<S>,
        timer: Pin<Box<LazyTimer>>,
    },
}

/// An attempt that is to be followed by another. Its result is that of the call if there is no time for the other.
struct Failed<S: Service<R>, R> {
    result: Result<S::Response, S::Error>,
    permit: RetryPermit,
}

const COMPLETED: &str = "polled after completion";

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn new(future: S::Future, retries: Option<Box<Retries<S, R>>>) -> Self {
        Self { state: State::Call { future }, retries }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext, Error: AnyError> + Clone,
    R: RequestContext + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let polled = match this.state.as_mut().project() {
                StateProj::Call { future } => future.poll(cx),
                StateProj::Backoff { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    let retries = this.retries.as_ref().expect(COMPLETED);
                    let service = Box::new(retries.source.get());
                    let timer = Box::pin(LazyTimer::new(retries.request.deadline()));
                    this.state.set(State::AwaitReady { service, timer });
                    continue;
                }
                StateProj::AwaitReady { service, timer } => {
                    let retries = this.retries.as_mut().expect(COMPLETED);
                    // First, as a request past its deadline is not sent even if the service is ready.
                    if timer.as_mut().poll_elapsed(cx).is_ready() {
                        retries.policy.counts.lock().deadline_exceeded += 1;
                        return Poll::Ready(retries.failed.take().expect(COMPLETED).result);
                    }
                    let ready = ready!(service.poll_ready(cx));
                    retries.failed.take().expect(COMPLETED).permit.spend();
                    retries.attempts += 1;
                    match ready {
                        Err(error) => Poll::Ready(Err(error)),
                        Ok(()) => {
                            let future = service.call(Retries::next_request(this.retries));
                            this.state.set(State::Call { future });
                            continue;
                        }
                    }
                }
            };
            let Some(retries) = this.retries.as_mut() else { return polled };
            let result = ready!(polled);
            let deadline = retries.request.deadline();
            let Some((due, permit)) = retries.policy.next_attempt(&result, retries.attempts, deadline) else {
                return Poll::Ready(result);
            };
            retries.failed = Some(Failed { result, permit });
            this.state.set(State::Backoff { sleep: Box::pin(sleep_until(due.into())) });
        }
    }
}
