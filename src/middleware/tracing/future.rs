use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::{pin_project, pinned_drop};
use tracing::Span;

use super::record;
use crate::error::AnyError;
use crate::request::ResponseContext;

/// The answer of a [`Tracing`](super::Tracing).
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    /// Taken out inside the span when it ends, or is dropped before.
    #[pin]
    inner: Option<F>,
    /// `None` where nobody listens, and once the call has ended.
    span: Option<Span>,
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn unobserved(inner: F) -> Self {
        Self { inner: Some(inner), span: None }
    }

    #[inline]
    pub(super) fn observed(inner: F, span: Span) -> Self {
        Self { inner: Some(inner), span: Some(span) }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.span.is_some() {
            return self.poll_observed(cx);
        }
        self.project().inner.as_pin_mut().expect(DONE).poll(cx)
    }
}

const DONE: &str = "polled after it had completed";

impl<F, T, E> ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    // Apart, so that the call that nobody observes is not made to keep room for it.
    #[inline(never)]
    fn poll_observed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        let mut this = self.project();
        let (Some(span), Some(inner)) = (&*this.span, this.inner.as_mut().as_pin_mut()) else { panic!("{DONE}") };
        let entered = span.enter();
        let result = ready!(inner.poll(cx));
        this.inner.set(None);
        record::end(span, &result);
        drop(entered);
        *this.span = None;
        Poll::Ready(result)
    }
}

#[pinned_drop]
impl<F> PinnedDrop for ResponseFuture<F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if self.span.is_some() {
            self.dropped_early();
        }
    }
}

impl<F> ResponseFuture<F> {
    #[cold]
    fn dropped_early(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let Some(span) = this.span.take() {
            let _entered = span.enter();
            this.inner.set(None);
            record::dropped(&span);
        }
    }
}
