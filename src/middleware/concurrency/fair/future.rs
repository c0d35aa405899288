use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;
use tower_service::Service;

use super::FairError;
use super::shares::{Shares, TenantSlot, Ticket};
use crate::middleware::clock;
use crate::middleware::concurrency::limit::{Begin, End, Fixed, Limit};
use crate::middleware::concurrency::shared::{Running, Shared};
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// The answer of a [`Fair`](super::Fair).
///
/// # Panics
/// Where the call has to wait for its place, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, L: Limit = Fixed> {
    #[pin]
    state: State<S, R, L>,
}

/// `ForPlace`, `ForReadiness`, `Called`, in this order; most calls begin as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R, L: Limit> {
    ForPlace {
        waiting: Option<Waiting<S, R, L>>,
        since: Instant,
        #[pin]
        timer: LazyTimer,
    },
    /// Has its place, and the inner service is not ready.
    ForReadiness {
        waiting: Option<Waiting<S, R, L>>,
    },
    Called {
        // Dropped in this order: the place is free when the work has stopped.
        #[pin]
        future: S::Future,
        running: Option<Running<L, Shares>>,
    },
    Full {
        waiting: usize,
    },
}

struct Waiting<S, R, L> {
    service: S,
    request: R,
    line: InLine<L>,
}

/// A place in the line, then in the service; whichever it is, it is given back when this is dropped.
pub(super) struct InLine<L> {
    shared: Arc<Shared<L, Shares>>,
    ticket: Option<Ticket>,
}

impl<L> InLine<L> {
    pub(super) fn new(shared: Arc<Shared<L, Shares>>, ticket: Ticket) -> Self {
        Self { shared, ticket: Some(ticket) }
    }

    /// Whether the place has come.
    fn has_come(&self, waker: &Waker) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| self.shared.places.has_come(ticket, waker))
    }

    /// The place, which has come, for a call of `request`.
    fn begin<R>(mut self, request: &R) -> Running<L, Shares>
    where
        L: Begin<R>,
    {
        let held: TenantSlot = self.ticket.take().map(|ticket| self.shared.places.take(ticket)).expect(DONE);
        self.shared.begin(held, request)
    }
}

impl<L> Drop for InLine<L> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.places.give_up(ticket);
        }
    }
}

impl<S: Service<R>, R, L: Limit> ResponseFuture<S, R, L> {
    pub(super) fn called(future: S::Future, running: Running<L, Shares>) -> Self {
        Self { state: State::Called { future, running: Some(running) } }
    }

    pub(super) fn full(waiting: usize) -> Self {
        Self { state: State::Full { waiting } }
    }

    /// `service` must be one that holds no readiness.
    pub(super) fn waiting(service: S, request: R, line: InLine<L>, max_wait: Duration) -> Self
    where
        R: RequestContext,
    {
        let since = clock::now();
        // A wait that no instant can express is as long as the deadline allows.
        let give_up = [since.checked_add(max_wait), request.deadline()].into_iter().flatten().min();
        let waiting = Some(Waiting { service, request, line });
        Self { state: State::ForPlace { waiting, since, timer: LazyTimer::new(give_up) } }
    }
}

const DONE: &str = "polled after it had completed";

impl<S, R, L> Future for ResponseFuture<S, R, L>
where
    S: Service<R>,
    L: Begin<R> + End<S::Response, S::Error>,
{
    type Output = Result<S::Response, FairError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::ForPlace { waiting, since, timer } => {
                    if waiting.as_ref().expect(DONE).line.has_come(cx.waker()) {
                        State::ForReadiness { waiting: waiting.take() }
                    } else {
                        ready!(timer.poll_elapsed(cx));
                        *waiting = None;
                        let waited = clock::read().saturating_duration_since(*since);
                        return Poll::Ready(Err(FairError::Waited { waited }));
                    }
                }
                StateProj::ForReadiness { waiting } => {
                    let service = &mut waiting.as_mut().expect(DONE).service;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        *waiting = None;
                        return Poll::Ready(Err(FairError::Inner(error)));
                    }
                    let Waiting { mut service, request, line } = waiting.take().expect(DONE);
                    let running = Some(line.begin(&request));
                    State::Called { future: service.call(request), running }
                }
                StateProj::Called { future, running } => {
                    let result = ready!(future.poll(cx));
                    if let Some(running) = running.take() {
                        running.end(&result);
                    }
                    return Poll::Ready(result.map_err(FairError::Inner));
                }
                StateProj::Full { waiting } => return Poll::Ready(Err(FairError::Full { waiting: *waiting })),
            };
            state.set(next);
        }
    }
}

impl<S: Service<R>, R, L: Limit> fmt::Debug for ResponseFuture<S, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::ForPlace { .. } => "waiting for a place",
            State::ForReadiness { .. } => "waiting for readiness",
            State::Called { .. } => "called",
            State::Full { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
