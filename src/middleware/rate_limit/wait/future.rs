use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use super::super::{Limit, RateLimitError};
use super::Permit;
use crate::middleware::clock;

pin_project! {
    /// The response future of a [`Wait`](super::Wait).
    pub struct WaitFuture<S: Service<R>, R, L> {
        #[pin]
        state: State<S, R, L>,
    }
}

pin_project! {
    // `ForToken` -> `ForReadiness` -> `Called`; a call within the quota starts as `Called`.
    #[project = StateProj]
    enum State<S: Service<R>, R, L> {
        // Sleeps until a token can be there, tries to take it, and sleeps again where another call took it first.
        ForToken {
            waiting: Option<Waiting<S, R, L>>,
            give_up: Instant,
            #[pin]
            sleep: Sleep,
        },
        // Has the token, and waits until the service is ready.
        ForReadiness {
            waiting: Option<Waiting<S, R, L>>,
        },
        Called {
            #[pin]
            future: S::Future,
        },
        Limited {
            retry_after: Duration,
        },
    }
}

/// A waiting call. It holds its permit until the inner call: waiting for readiness counts as waiting.
struct Waiting<S, R, L> {
    service: S,
    request: R,
    permit: Permit<L>,
}

impl<S: Service<R>, R, L> WaitFuture<S, R, L> {
    pub(super) fn called(future: S::Future) -> Self {
        Self { state: State::Called { future } }
    }

    pub(super) fn limited(retry_after: Duration) -> Self {
        Self { state: State::Limited { retry_after } }
    }

    /// `service` must not have been polled ready.
    pub(super) fn waiting(service: S, request: R, permit: Permit<L>, now: Instant, wait: Duration) -> Self {
        // The layer's bound is at least this wait, which is the time until the token and no more than a century.
        let give_up = now.checked_add(permit.queue.max_wait).unwrap_or(now + wait);
        let sleep = sleep_until((now + wait).into());
        Self { state: State::ForToken { waiting: Some(Waiting { service, request, permit }), give_up, sleep } }
    }
}

const DONE: &str = "polled after it had completed";

impl<S, R, L> Future for WaitFuture<S, R, L>
where
    S: Service<R>,
    L: Limit<R>,
{
    type Output = Result<S::Response, RateLimitError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::ForToken { waiting, give_up, mut sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    let Waiting { request, permit, .. } = waiting.as_ref().expect(DONE);
                    match permit.queue.limit.take(request) {
                        Ok(()) => State::ForReadiness { waiting: waiting.take() },
                        Err(wait) => {
                            let next_try = clock::now() + wait;
                            if next_try <= *give_up {
                                sleep.reset(next_try.into());
                                continue;
                            }
                            State::Limited { retry_after: wait }
                        }
                    }
                }
                StateProj::ForReadiness { waiting } => {
                    let service = &mut waiting.as_mut().expect(DONE).service;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        *waiting = None;
                        return Poll::Ready(Err(RateLimitError::Inner(error)));
                    }
                    let Waiting { mut service, request, permit } = waiting.take().expect(DONE);
                    drop(permit);
                    State::Called { future: service.call(request) }
                }
                StateProj::Called { future } => return future.poll(cx).map_err(RateLimitError::Inner),
                StateProj::Limited { retry_after } => {
                    return Poll::Ready(Err(RateLimitError::Limited { retry_after: *retry_after }));
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<R>, R, L> fmt::Debug for WaitFuture<S, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::ForToken { .. } => "waiting for a token",
            State::ForReadiness { .. } => "waiting for readiness",
            State::Called { .. } => "called",
            State::Limited { .. } => "limited",
        };
        f.debug_struct("WaitFuture").field("state", &state).finish_non_exhaustive()
    }
}
