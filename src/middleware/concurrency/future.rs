use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::limit::{End, Fixed, Limit};
use super::shared::Running;

/// The answer of a [`ConcurrencyLimit`](super::ConcurrencyLimit).
#[pin_project]
pub struct ResponseFuture<F, L: Limit = Fixed> {
    // Dropped in this order: the place is free when the work has stopped.
    #[pin]
    inner: F,
    /// `None` once the work has ended.
    running: Option<Running<L>>,
}

impl<F, L: Limit> ResponseFuture<F, L> {
    #[inline]
    pub(super) fn new(inner: F, running: Running<L>) -> Self {
        Self { inner, running: Some(running) }
    }
}

impl<F, L, T, E> Future for ResponseFuture<F, L>
where
    F: Future<Output = Result<T, E>>,
    L: End<T, E>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Looked at where it is: to take it out would be to move it.
        let polled = this.inner.poll(cx);
        if let Poll::Ready(result) = &polled
            && let Some(running) = this.running.take()
        {
            running.end(result);
        }
        polled
    }
}

impl<F, L: Limit> fmt::Debug for ResponseFuture<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("ended", &self.running.is_none()).finish_non_exhaustive()
    }
}
