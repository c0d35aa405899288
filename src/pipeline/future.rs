use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::error::PipelineError;
use super::service::{KernelHandler, Stack};
use crate::service::{KernelRequest, KernelResponse};

pin_project! {
    /// The response future of a [`Pipeline`](super::Pipeline).
    pub struct PipelineFuture<S: KernelHandler> {
        #[pin]
        pub(super) inner: <Stack<S> as Service<KernelRequest>>::Future,
    }
}

impl<S: KernelHandler> Future for PipelineFuture<S> {
    type Output = Result<KernelResponse, PipelineError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(PipelineError::new)
    }
}

impl<S: KernelHandler> fmt::Debug for PipelineFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineFuture").finish_non_exhaustive()
    }
}
