use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::PriorityQueueError;
use super::error::Rejection;
use super::queue::{Receiver, Turn};
use super::service_times::ServiceTimer;
use crate::middleware::derive::derive_debug;
use crate::request::ResponseContext;

/// Response future of [`PriorityQueue`](super::PriorityQueue).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
}

/// `Waiting`, `Ready`, `Called`, in this order. A call that finds the inner service ready begins as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    Waiting {
        request: Option<R>,
        receiver: Receiver<S>,
    },
    /// Has been given a service that is ready, or a fresh one to poll if readiness has failed.
    Ready {
        request: Option<R>,
        turn: Turn<S>,
    },
    Called {
        // Dropped in this order: the service time ends when the work has stopped.
        #[pin]
        future: S::Future,
        timer: Option<ServiceTimer>,
    },
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn called(future: S::Future) -> Self {
        Self { state: State::Called { future, timer: None } }
    }

    pub(super) fn waiting(request: R, receiver: Receiver<S>) -> Self {
        Self { state: State::Waiting { request: Some(request), receiver } }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext>,
{
    type Output = Result<S::Response, PriorityQueueError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Waiting { request, receiver } => {
                    let turn = ready!(receiver.poll_turn(cx)).map_err(Rejection::into_error)?;
                    State::Ready { request: request.take(), turn }
                }
                StateProj::Ready { request, turn } => {
                    ready!(turn.service.poll_ready(cx)).map_err(PriorityQueueError::Inner)?;
                    let request = request.take().expect("a request that waits is called once");
                    let timer = turn.timer.take().map(ServiceTimer::start);
                    State::Called { future: turn.service.call(request), timer }
                }
                StateProj::Called { future, timer } => {
                    let result = ready!(future.poll(cx));
                    if let Some(timer) = timer.take() {
                        timer.finish(result.as_ref().is_ok_and(|response| response.failure().is_none()));
                    }
                    return Poll::Ready(result.map_err(PriorityQueueError::Inner));
                }
            };
            state.set(next);
        }
    }
}

derive_debug!(ResponseFuture::<S, R> {} where S: Service<R>);
