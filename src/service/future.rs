//! The future of a [`KernelService`](super::KernelService) call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::{KernelError, KernelResponse};

/// A kernel being run. Dropping it cancels the work.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProjection)]
#[derive(Debug)]
enum State<F> {
    Refused(KernelError),
    Running(#[pin] F),
}

impl<F> ResponseFuture<F> {
    pub(super) fn refuse(error: KernelError) -> Self {
        Self { state: State::Refused(error) }
    }

    pub(super) fn run(future: F) -> Self {
        Self { state: State::Running(future) }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<KernelResponse, E>>,
    E: From<KernelError>,
{
    type Output = Result<KernelResponse, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused(error) => Poll::Ready(Err(error.clone().into())),
            StateProjection::Running(future) => future.poll(cx),
        }
    }
}
