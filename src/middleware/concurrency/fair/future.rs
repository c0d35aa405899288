use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;
use tower_service::Service;

use super::FairError;
use crate::middleware::clock;
use crate::middleware::concurrency::limit::{FinishCall, Fixed, Limit, StartCall};
use crate::middleware::concurrency::permits::{Permit, Waiter};
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// Response future of [`Fair`](super::Fair).
///
/// # Panics
/// If the call has to wait for a permit, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, L: Limit = Fixed> {
    #[pin]
    state: State<S, R, L>,
}

/// `ForPermit`, `ForReadiness`, `Called`, in this order. A call that finds a free permit begins as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R, L: Limit> {
    ForPermit {
        call: Option<(S, R)>,
        waiter: Waiter<L>,
        since: Instant,
        #[pin]
        timer: LazyTimer,
    },
    ForReadiness {
        call: Option<(S, R, Permit<L>)>,
    },
    Called {
        // Dropped in this order: the permit is free when the work has stopped.
        #[pin]
        future: S::Future,
        permit: Option<Permit<L>>,
    },
    Rejected {
        waiting: usize,
    },
}

impl<S: Service<R>, R, L: Limit> ResponseFuture<S, R, L> {
    pub(super) fn called(future: S::Future, permit: Permit<L>) -> Self {
        Self { state: State::Called { future, permit: Some(permit) } }
    }

    pub(super) fn rejected(waiting: usize) -> Self {
        Self { state: State::Rejected { waiting } }
    }

    /// `service` must not have been polled ready.
    pub(super) fn waiting(service: S, request: R, waiter: Waiter<L>, max_wait: Duration) -> Self
    where
        R: RequestContext,
    {
        let since = clock::now();
        // A wait too long for an `Instant` is as long as the deadline allows.
        let until = [since.checked_add(max_wait), request.deadline()].into_iter().flatten().min();
        Self { state: State::ForPermit { call: Some((service, request)), waiter, since, timer: LazyTimer::new(until) } }
    }
}

const COMPLETED: &str = "polled after completion";

impl<S, R, L> Future for ResponseFuture<S, R, L>
where
    S: Service<R>,
    L: StartCall<R> + FinishCall<S::Response, S::Error>,
{
    type Output = Result<S::Response, FairError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::ForPermit { call, waiter, since, timer } => match waiter.poll(cx.waker()) {
                    Some(permit) => {
                        let (service, request) = call.take().expect(COMPLETED);
                        State::ForReadiness { call: Some((service, request, permit)) }
                    }
                    None => {
                        ready!(timer.poll_elapsed(cx));
                        let waited = clock::read().saturating_duration_since(*since);
                        // Gives up the position in the queue.
                        state.set(State::ForReadiness { call: None });
                        return Poll::Ready(Err(FairError::TimedOut { waited }));
                    }
                },
                StateProj::ForReadiness { call } => {
                    let (service, ..) = call.as_mut().expect(COMPLETED);
                    let polled = ready!(service.poll_ready(cx));
                    let (mut service, request, mut permit) = call.take().expect(COMPLETED);
                    if let Err(error) = polled {
                        return Poll::Ready(Err(FairError::Inner(error)));
                    }
                    permit.start(&request);
                    State::Called { future: service.call(request), permit: Some(permit) }
                }
                StateProj::Called { future, permit } => {
                    let result = ready!(future.poll(cx));
                    if let Some(permit) = permit.take() {
                        permit.finish(&result);
                    }
                    return Poll::Ready(result.map_err(FairError::Inner));
                }
                StateProj::Rejected { waiting } => return Poll::Ready(Err(FairError::Full { waiting: *waiting })),
            };
            state.set(next);
        }
    }
}

impl<S: Service<R>, R, L: Limit> fmt::Debug for ResponseFuture<S, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::ForPermit { .. } => "waiting for a permit",
            State::ForReadiness { .. } => "waiting for readiness",
            State::Called { .. } => "called",
            State::Rejected { .. } => "rejected",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
