use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::{KernelError, KernelResponse};

/// The response future of [`KernelService`](super::KernelService). Dropping it cancels the run.
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
    Rejected(KernelError),
    Running(#[pin] F),
}

impl<F> ResponseFuture<F> {
    pub(super) fn rejected(error: KernelError) -> Self {
        Self { state: State::Rejected(error) }
    }

    pub(super) fn running(future: F) -> Self {
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
            StateProjection::Rejected(error) => Poll::Ready(Err(error.clone().into())),
            StateProjection::Running(future) => future.poll(cx),
        }
    }
}
