use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tracing::Span;

use super::memory::{CallMemory, ResponseBody};
use super::status::Rejection;
use super::timer::Timer;
use crate::error::ErrorKind;

/// The future of a [`KernelGrpcService`](super::KernelGrpcService) call.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
    timer: Timer,
    /// Span of the request, if no outer layer has created one.
    span: Span,
}

enum State {
    Rejected(Option<Box<Status>>),
    Running(BoxFuture<http::Response<Body>, Infallible>, CallMemory),
}

impl ResponseFuture {
    pub(super) fn reject(status: Status) -> Self {
        Self { state: State::Rejected(Some(Box::new(status))), timer: Timer::new(None), span: Span::none() }
    }

    pub(super) fn run(
        future: BoxFuture<http::Response<Body>, Infallible>,
        call: CallMemory,
        deadline: Instant,
    ) -> Self {
        Self { state: State::Running(future, call), timer: Timer::new(Some(deadline)), span: Span::none() }
    }

    pub(super) fn in_span(self, span: Span) -> Self {
        Self { span, ..self }
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let _entered = this.span.enter();
        let (future, call) = match &mut this.state {
            State::Rejected(status) => {
                return Poll::Ready(Ok(status.take().expect("polled after it had completed").into_http()));
            }
            State::Running(future, call) => (future, call),
        };
        if let Poll::Ready(response) = future.as_mut().poll(cx) {
            let held = |body| Body::new(ResponseBody::new(body, call.clone()));
            return Poll::Ready(response.map(|response| response.map(held)));
        }
        // The handler, polled first, ends at the same deadline with a more specific error. This timer covers requests
        // that have not arrived in full.
        ready!(this.timer.poll_elapsed(cx));
        let rejection =
            Rejection::new(ErrorKind::DeadlineExceeded, "the deadline passed before the request had arrived in full");
        Poll::Ready(Ok(rejection.into_status(None).into_http()))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("timer", &self.timer).finish_non_exhaustive()
    }
}
