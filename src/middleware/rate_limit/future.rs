use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::RateLimitError;

/// The answer of a [`RateLimiter`](super::RateLimiter).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Called {
        #[pin]
        inner: F,
    },
    Limited {
        retry_after: Duration,
    },
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F) -> Self {
        Self { state: State::Called { inner } }
    }

    #[inline]
    pub(super) fn limited(retry_after: Duration) -> Self {
        Self { state: State::Limited { retry_after } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, RateLimitError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner } => inner.poll(cx).map_err(RateLimitError::Inner),
            StateProj::Limited { retry_after } => {
                Poll::Ready(Err(RateLimitError::Limited { retry_after: *retry_after }))
            }
        }
    }
}
