use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;

use super::limit::{FinishCall, Fixed, Limit};
use super::permits::Permit;

/// Response future of [`ConcurrencyLimit`](super::ConcurrencyLimit).
#[pin_project]
pub struct ResponseFuture<F, L: Limit = Fixed> {
    // Dropped in this order: the permit is free when the work has stopped.
    #[pin]
    inner: F,
    /// `None` once the call has finished.
    permit: Option<Permit<L>>,
}

impl<F, L: Limit> ResponseFuture<F, L> {
    pub(super) fn new(inner: F, permit: Permit<L>) -> Self {
        Self { inner, permit: Some(permit) }
    }
}

impl<F, L, T, E> Future for ResponseFuture<F, L>
where
    F: Future<Output = Result<T, E>>,
    L: FinishCall<T, E>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(permit) = this.permit.take() {
            permit.finish(&result);
        }
        Poll::Ready(result)
    }
}

impl<F, L: Limit> fmt::Debug for ResponseFuture<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("is_finished", &self.permit.is_none()).finish_non_exhaustive()
    }
}
