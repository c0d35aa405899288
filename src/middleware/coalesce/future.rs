use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::CoalesceError;
use super::flight::Outcome;
use super::shared::{CallerOf, FlightsOf, Rerun};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::cache_key::CacheKey;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

type RerunOf<S, P, R> = Box<Rerun<S, P, FlightsOf<S, P, R>, R>>;

/// Response future of [`Coalesce`](super::Coalesce).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the request has a deadline and the run is pending.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, P: CacheKey<R>, R> {
    #[pin]
    state: State<S, P, R>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<R>, P: CacheKey<R>, R> {
    /// The run is not shared.
    Alone {
        #[pin]
        inner: S::Future,
    },
    Shared {
        /// `None` while it waits for readiness to run alone.
        caller: Option<CallerOf<S, P, R>>,
        /// `None` if it leads.
        rerun: Option<RerunOf<S, P, R>>,
        #[pin]
        timer: LazyTimer,
    },
    Completed,
}

impl<S: Service<R>, P: CacheKey<R>, R> ResponseFuture<S, P, R> {
    pub(super) fn alone(inner: S::Future) -> Self {
        Self { state: State::Alone { inner } }
    }

    /// With what it needs to call again, if it does not lead the run.
    pub(super) fn shared(
        caller: CallerOf<S, P, R>,
        rerun: Option<RerunOf<S, P, R>>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { state: State::Shared { caller: Some(caller), rerun, timer: LazyTimer::new(deadline) } }
    }
}

impl<S, P, R> Future for ResponseFuture<S, P, R>
where
    S: Service<R> + Clone,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: CacheKey<R>,
    R: RequestContext,
{
    type Output = Result<S::Response, CoalesceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (caller, rerun, mut timer) = match this.state.as_mut().project() {
                StateProj::Alone { inner } => {
                    return inner.poll(cx).map_err(|error| CoalesceError::Inner(Arc::new(error)));
                }
                StateProj::Shared { caller, rerun, timer } => (caller, rerun, timer),
                StateProj::Completed => panic!("polled after completion"),
            };
            let result = match caller.as_ref().filter(|caller| !caller.is_starting()) {
                Some(running) => match running.poll(cx) {
                    Poll::Ready(outcome) => match (outcome, &*rerun) {
                        (outcome, Some(rerun)) if is_of_leader_alone(&outcome) => {
                            *caller = rerun.join_or_lead();
                            continue;
                        }
                        (outcome, _) => into_result(outcome),
                    },
                    Poll::Pending => {
                        ready!(timer.as_mut().poll_elapsed(cx));
                        Err(CoalesceError::Elapsed)
                    }
                },
                // First, as a request past its deadline is not sent even if the service is ready.
                None if timer.as_mut().poll_elapsed(cx).is_ready() => Err(CoalesceError::Elapsed),
                None => {
                    let mut next = rerun.take().expect("a leader has started its run in the call");
                    match next.service.poll_ready(cx) {
                        Poll::Pending => {
                            *rerun = Some(next);
                            return Poll::Pending;
                        }
                        Poll::Ready(Err(error)) => Err(CoalesceError::Inner(Arc::new(error))),
                        Poll::Ready(Ok(())) => {
                            let request = next.request.take().expect("it has not been called");
                            let call = || next.shared.call(&mut next.service, request);
                            match caller {
                                Some(caller) => caller.start(call),
                                None => {
                                    let inner = call();
                                    this.state.set(State::Alone { inner });
                                }
                            }
                            continue;
                        }
                    }
                }
            };
            // Leaves the flight now rather than when the future is dropped.
            this.state.set(State::Completed);
            return Poll::Ready(result);
        }
    }
}

/// Whether a run has ended for a reason of its leader's that does not apply to the callers that joined.
fn is_of_leader_alone<T, E: AnyError>(outcome: &Outcome<T, E>) -> bool {
    match outcome {
        Outcome::Ended(Err(error)) => {
            matches!(error.classify().kind, ErrorKind::DeadlineExceeded | ErrorKind::Cancelled)
        }
        Outcome::Abandoned => true,
        Outcome::Ended(Ok(_)) | Outcome::Panicked => false,
    }
}

fn into_result<T, E>(outcome: Outcome<T, E>) -> Result<T, CoalesceError<E>> {
    match outcome {
        Outcome::Ended(result) => result.map_err(CoalesceError::Inner),
        Outcome::Panicked => Err(CoalesceError::Panicked),
        Outcome::Abandoned => unreachable!("only callers that can call again wait for a run that has not started"),
    }
}

impl<S: Service<R>, P: CacheKey<R>, R> fmt::Debug for ResponseFuture<S, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Alone { .. } => "alone",
            State::Shared { rerun: None, .. } => "leading",
            State::Shared { caller: Some(caller), .. } if !caller.is_starting() => "joined",
            State::Shared { .. } => "await ready",
            State::Completed => "completed",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
