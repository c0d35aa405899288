use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tracing::Span;

use super::record;
use crate::error::AnyError;
use crate::request::ResponseContext;

pin_project! {
    /// The response future of a [`Tracing`](super::Tracing).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // Dropped inside the span.
        #[pin]
        inner: Option<F>,
        // `None` where the span is disabled, and once the call has ended.
        span: Option<Span>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(span) = this.span.take() {
                let _entered = span.enter();
                this.inner.set(None);
                record::dropped(&span);
            }
        }
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(inner: F, span: Option<Span>) -> Self {
        Self { inner: Some(inner), span }
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
        let mut this = self.project();
        let inner = this.inner.as_mut().as_pin_mut().expect("polled after it had completed");
        let Some(span) = &*this.span else { return inner.poll(cx) };
        let entered = span.enter();
        let result = ready!(inner.poll(cx));
        this.inner.set(None);
        record::end(span, &result);
        drop(entered);
        *this.span = None;
        Poll::Ready(result)
    }
}
