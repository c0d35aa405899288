use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::PriorityQueueError;
use super::answers::Watch;
use super::error::Refusal;
use super::line::Ticket;
use crate::request::{RequestContext, ResponseContext};

/// The answer of a [`PriorityQueue`](super::PriorityQueue).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
}

/// `InLine`, `OnTurn`, `Called` or `Watched`, in this order; a call that finds the inner service ready begins as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    InLine {
        waiting: Option<(R, Ticket<S>)>,
    },
    /// Has been given a service that is ready, or the next to ask where readiness has failed.
    OnTurn {
        turn: Option<(R, S, Option<Watch>)>,
    },
    Called {
        #[pin]
        future: S::Future,
    },
    /// Called, and it is learned how long it takes. Apart from it for the sake of those that did not wait.
    Watched {
        // Dropped in this order: what is being learned is until it has stopped.
        #[pin]
        future: S::Future,
        watch: Option<Watch>,
    },
    Refused {
        refusal: Refusal,
    },
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    #[inline]
    pub(super) fn called(future: S::Future) -> Self {
        Self { state: State::Called { future } }
    }

    pub(super) fn in_line(request: R, ticket: Ticket<S>) -> Self {
        Self { state: State::InLine { waiting: Some((request, ticket)) } }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal } }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext>,
    R: RequestContext,
{
    type Output = Result<S::Response, PriorityQueueError<S::Error>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let StateProj::Called { future } = self.as_mut().project().state.project() {
            return future.poll(cx).map_err(PriorityQueueError::Inner);
        }
        self.poll_turn(cx)
    }
}

const DONE: &str = "polled after it had completed";

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext>,
    R: RequestContext,
{
    // Apart, so that a call that did not wait is not made to keep room for it.
    #[inline(never)]
    fn poll_turn(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::InLine { waiting } => {
                    let (request, ticket) = waiting.as_mut().expect(DONE);
                    match ready!(ticket.poll_turn(request.operation(), cx)) {
                        Ok((service, watch)) => {
                            let (request, _) = waiting.take().expect(DONE);
                            State::OnTurn { turn: Some((request, service, watch)) }
                        }
                        Err(refusal) => {
                            *waiting = None;
                            return Poll::Ready(Err(refusal.around()));
                        }
                    }
                }
                StateProj::OnTurn { turn } => {
                    let service = &mut turn.as_mut().expect(DONE).1;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        *turn = None;
                        return Poll::Ready(Err(PriorityQueueError::Inner(error)));
                    }
                    let (request, mut service, watch) = turn.take().expect(DONE);
                    let future = service.call(request);
                    match watch {
                        Some(_) => State::Watched { future, watch },
                        None => State::Called { future },
                    }
                }
                StateProj::Called { future } => return future.poll(cx).map_err(PriorityQueueError::Inner),
                StateProj::Watched { future, watch } => {
                    let result = ready!(future.poll(cx));
                    if let Some(watch) = watch.take() {
                        watch.ended(result.as_ref().is_ok_and(|response| response.failure().is_none()));
                    }
                    return Poll::Ready(result.map_err(PriorityQueueError::Inner));
                }
                StateProj::Refused { refusal } => return Poll::Ready(Err(refusal.around())),
            };
            state.set(next);
        }
    }
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::InLine { .. } => "in line",
            State::OnTurn { .. } => "on turn",
            State::Called { .. } | State::Watched { .. } => "called",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
