use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use super::policy::{Policy, Waiting};
use crate::error::AnyError;
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::{RequestContext, ResponseContext};

/// The answer of a [`Retry`](super::Retry).
///
/// # Panics
/// Where a call is made again, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
    /// `None` where there is no further attempt, whatever this one comes to.
    again: Option<Again<S, R>>,
}

/// What further attempts need.
pub(super) struct Again<S, R> {
    pub(super) source: CloneSource<S>,
    pub(super) request: R,
    /// Those that were made.
    pub(super) attempts: u32,
    pub(super) policy: Arc<Policy>,
}

/// `Called`, and after each failure that is tried again `Backoff`, `ForReadiness` and `Called` once more.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    Called {
        #[pin]
        future: S::Future,
    },
    Backoff {
        /// What the call ends with where it is not made again after all.
        failed: Option<Failed<S, R>>,
        #[pin]
        sleep: Sleep,
    },
    ForReadiness {
        failed: Option<Failed<S, R>>,
        service: S,
        #[pin]
        timer: LazyTimer,
    },
}

struct Failed<S: Service<R>, R> {
    result: Result<S::Response, S::Error>,
    waiting: Waiting,
}

/// Where it goes on, or how the call has ended.
type Next<S, R> = Result<State<S, R>, Result<<S as Service<R>>::Response, <S as Service<R>>::Error>>;

const DONE: &str = "polled after it had completed";

impl<S: Service<R>, R> ResponseFuture<S, R> {
    #[inline]
    pub(super) fn new(future: S::Future, again: Option<Again<S, R>>) -> Self {
        Self { state: State::Called { future }, again }
    }
}

impl<S, R> Again<S, R>
where
    S: Service<R, Response: ResponseContext, Error: AnyError>,
    R: RequestContext,
{
    /// Waits before the next attempt, where there is one after this result.
    fn back_off(&self, result: Result<S::Response, S::Error>) -> Next<S, R> {
        match self.policy.next(&result, self.attempts, self.request.deadline()) {
            Some(due) => {
                let failed = Some(Failed { result, waiting: self.policy.wait() });
                Ok(State::Backoff { failed, sleep: sleep_until(due.into()) })
            }
            None => Err(result),
        }
    }

    fn is_late(&self) -> bool {
        self.request.deadline().is_some_and(|deadline| deadline <= clock::read())
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext, Error: AnyError> + Clone,
    R: RequestContext + Clone,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if let (StateProj::Called { future }, None) = (this.state.project(), this.again) {
            return future.poll(cx);
        }
        self.poll_attempts(cx)
    }
}

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext, Error: AnyError> + Clone,
    R: RequestContext + Clone,
{
    // Apart, so that a call of one attempt is not made to keep room for it.
    #[inline(never)]
    fn poll_attempts(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Called { future } => {
                    let result = ready!(future.poll(cx));
                    match this.again {
                        Some(again) if failed(&result) => again.back_off(result),
                        // Straight on, as nearly all are.
                        _ => return Poll::Ready(result),
                    }
                }
                StateProj::Backoff { failed, sleep } => {
                    ready!(sleep.poll(cx));
                    let again = this.again.as_ref().expect(DONE);
                    let (service, timer) = (again.source.get(), LazyTimer::new(again.request.deadline()));
                    Ok(State::ForReadiness { failed: failed.take(), service, timer })
                }
                StateProj::ForReadiness { failed, service, timer } => {
                    ready!(again(this.again, failed, service, timer, cx))
                }
            };
            match next {
                Ok(state) => this.state.set(state),
                Err(result) => return Poll::Ready(result),
            }
        }
    }
}

#[inline]
fn failed<T: ResponseContext, E>(result: &Result<T, E>) -> bool {
    result.as_ref().map_or(true, |response| response.failure().is_some())
}

/// Makes the next attempt once its service is ready, or comes back with how the call has ended.
fn again<S, R>(
    again: &mut Option<Again<S, R>>,
    failed: &mut Option<Failed<S, R>>,
    service: &mut S,
    timer: Pin<&mut LazyTimer>,
    cx: &mut Context<'_>,
) -> Poll<Next<S, R>>
where
    S: Service<R, Response: ResponseContext, Error: AnyError>,
    R: RequestContext + Clone,
{
    let mut next = again.take().expect(DONE);
    // A request that is late is not sent even if there is room now.
    let ready = if next.is_late() { None } else { Some(service.poll_ready(cx)) };
    let ready = match ready {
        Some(Poll::Ready(ready)) => ready,
        Some(Poll::Pending) if timer.poll_elapsed(cx).is_pending() => {
            *again = Some(next);
            return Poll::Pending;
        }
        _ => {
            next.policy.count_late();
            return Poll::Ready(Err(failed.take().expect(DONE).result));
        }
    };
    failed.take().expect(DONE).waiting.end();
    next.attempts += 1;
    next.policy.count_retry();
    Poll::Ready(match ready {
        Ok(()) if next.attempts < next.policy.settings.attempts => {
            let future = service.call(next.request.clone());
            *again = Some(next);
            Ok(State::Called { future })
        }
        // The last one needs no copy.
        Ok(()) => Ok(State::Called { future: service.call(next.request) }),
        Err(error) => {
            let state = next.back_off(Err(error));
            *again = Some(next);
            state
        }
    })
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Called { .. } => "called",
            State::Backoff { .. } => "waiting for the next attempt",
            State::ForReadiness { .. } => "waiting for readiness",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
