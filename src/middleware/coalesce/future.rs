use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::CoalesceError;
use super::again::{Again, CallerOf, FlightsOf};
use super::flight::Outcome;
use crate::error::{AnyError, ErrorKind};
use crate::middleware::cache_key::CacheKey;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

type AgainOf<S, P, R> = Again<S, P, FlightsOf<S, P, R>, R>;

/// The answer of a [`Coalesce`](super::Coalesce).
///
/// # Panics
/// Where the request has a deadline and the run is pending, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, P: CacheKey<R>, R> {
    #[pin]
    state: State<S, P, R>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<R>, P: CacheKey<R>, R> {
    /// It is nobody's repeat.
    Alone {
        #[pin]
        inner: S::Future,
    },
    Shared {
        /// `None` while it waits for readiness to run on its own.
        caller: Option<CallerOf<S, P, R>>,
        /// For those who have joined.
        again: Option<Box<AgainOf<S, P, R>>>,
        #[pin]
        timer: LazyTimer,
    },
    Done,
}

impl<S: Service<R>, P: CacheKey<R>, R> ResponseFuture<S, P, R> {
    #[inline]
    pub(super) fn alone(inner: S::Future) -> Self {
        Self { state: State::Alone { inner } }
    }

    #[inline]
    pub(super) fn leads(caller: CallerOf<S, P, R>, deadline: Option<Instant>) -> Self {
        Self { state: State::Shared { caller: Some(caller), again: None, timer: LazyTimer::new(deadline) } }
    }

    pub(super) fn joins(caller: CallerOf<S, P, R>, again: AgainOf<S, P, R>, deadline: Option<Instant>) -> Self {
        let again = Some(Box::new(again));
        Self { state: State::Shared { caller: Some(caller), again, timer: LazyTimer::new(deadline) } }
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let StateProj::Alone { inner } = self.as_mut().project().state.project() {
            return inner.poll(cx).map_err(|error| CoalesceError::Inner(Arc::new(error)));
        }
        self.poll_shared(cx)
    }
}

impl<S, P, R> ResponseFuture<S, P, R>
where
    S: Service<R> + Clone,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: CacheKey<R>,
    R: RequestContext,
{
    // Apart, so that a call that is nobody's repeat is not made to keep room for it.
    #[inline(never)]
    fn poll_shared(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        loop {
            let (caller, again, mut timer) = match this.state.as_mut().project() {
                StateProj::Alone { inner } => {
                    return inner.poll(cx).map_err(|error| CoalesceError::Inner(Arc::new(error)));
                }
                StateProj::Shared { caller, again, timer } => (caller, again, timer),
                StateProj::Done => panic!("polled after it had completed"),
            };
            // An answer that is there wins over a deadline that has passed.
            let waiting = match caller.as_ref().filter(|caller| !caller.is_to_begin()) {
                Some(caller) => caller.poll(cx).map(Some),
                None => Poll::Ready(None),
            };
            let answer = match (waiting, &mut *again) {
                (Poll::Ready(Some(outcome)), Some(going)) if is_of_its_caller(&outcome) => {
                    *caller = going.board();
                    continue;
                }
                (Poll::Ready(Some(outcome)), _) => told(outcome),
                (Poll::Pending, _) => {
                    ready!(timer.as_mut().poll_elapsed(cx));
                    Err(CoalesceError::Elapsed)
                }
                // A call that is late is not made, even if there is room now.
                (Poll::Ready(None), _) if timer.as_mut().poll_elapsed(cx).is_ready() => Err(CoalesceError::Elapsed),
                (Poll::Ready(None), Some(going)) => match ready!(going.service.poll_ready(cx)) {
                    Ok(()) => {
                        let request = going.request.take().expect("it has not been called");
                        let call = || going.shared.call(&mut going.service, request);
                        match caller {
                            Some(caller) => {
                                caller.begin(call);
                                *again = None;
                            }
                            None => {
                                let inner = call();
                                this.state.set(State::Alone { inner });
                            }
                        }
                        continue;
                    }
                    Err(error) => Err(CoalesceError::Inner(Arc::new(error))),
                },
                (Poll::Ready(None), None) => unreachable!("who has not joined has begun its run in the call"),
            };
            // Its place is given up now, and not when the caller drops what is left.
            this.state.set(State::Done);
            return Poll::Ready(answer);
        }
    }
}

/// Whether a run has ended for a reason that is its first caller's alone, and not that of those who have joined.
fn is_of_its_caller<T, E: AnyError>(outcome: &Outcome<T, E>) -> bool {
    match outcome {
        Outcome::Ended(Err(error)) => {
            matches!(error.classify().kind, ErrorKind::DeadlineExceeded | ErrorKind::Cancelled)
        }
        Outcome::Abandoned => true,
        Outcome::Ended(Ok(_)) | Outcome::Panicked => false,
    }
}

fn told<T, E>(outcome: Outcome<T, E>) -> Result<T, CoalesceError<E>> {
    match outcome {
        Outcome::Ended(result) => result.map_err(CoalesceError::Inner),
        Outcome::Panicked => Err(CoalesceError::Panicked),
        Outcome::Abandoned => unreachable!("who can be told that goes again"),
    }
}

impl<S: Service<R>, P: CacheKey<R>, R> fmt::Debug for ResponseFuture<S, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Alone { .. } => "alone",
            State::Shared { again: None, .. } => "leading",
            State::Shared { caller: Some(caller), .. } if !caller.is_to_begin() => "joined",
            State::Shared { .. } => "waiting for readiness",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
