use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::PriorityQueueError;
use super::error::Rejection;
use super::queue::{Receiver, Turn};
use super::service_times::ServiceTimer;
use crate::middleware::call_when_ready::CallWhenReady;
use crate::middleware::derive::derive_debug;
use crate::request::ResponseContext;

/// Response future of [`PriorityQueue`](super::PriorityQueue).
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
}

/// `Waiting`, then `Called`. A call that finds the inner service ready begins as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    Waiting {
        /// Taken when the call has its turn.
        request: Option<R>,
        receiver: Receiver<S>,
    },
    /// After a turn, of a service that is ready, or of a fresh one to poll if readiness has failed.
    Called {
        // Dropped in this order: the service time ends when the work has stopped.
        #[pin]
        call: CallWhenReady<S, R>,
        /// Boxed, as most calls have none and each would have the room for one.
        timer: Option<Box<ServiceTimer>>,
    },
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    #[inline]
    pub(super) fn called(future: S::Future) -> Self {
        Self { state: State::Called { call: CallWhenReady::called(future), timer: None } }
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
        if let StateProj::Waiting { request, receiver } = state.as_mut().project() {
            let Turn { service, timer } = ready!(receiver.poll_turn(cx)).map_err(Rejection::into_error)?;
            let request = request.take().expect("a call has one turn");
            state.set(State::Called { call: CallWhenReady::waiting(service, request), timer });
        }
        let StateProj::Called { call, timer } = state.project() else { unreachable!("the call has had its turn") };
        let result = ready!(call.poll(cx, |_| timer.iter_mut().for_each(|timer| timer.start())));
        if let Some(timer) = timer.take() {
            timer.finish(result.as_ref().is_ok_and(|response| response.failure().is_none()));
        }
        Poll::Ready(result.map_err(PriorityQueueError::Inner))
    }
}

derive_debug!(ResponseFuture::<S, R> {} where S: Service<R>);
