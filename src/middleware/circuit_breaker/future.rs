use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::CircuitBreakerError;
use super::call::CallGuard;
use crate::error::{AnyError, Classify};
use crate::middleware::call_or_reject::CallOrReject;
use crate::request::ResponseContext;

/// Response future of [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F, E> {
    #[pin]
    inner: CallOrReject<F, CircuitBreakerError<E>>,
    /// `None` if the call was rejected, or there is no circuit.
    call: Option<CallGuard>,
}

impl<F, E> ResponseFuture<F, E> {
    pub(super) fn call(inner: F, call: Option<CallGuard>) -> Self {
        Self { inner: CallOrReject::call(inner), call }
    }

    pub(super) fn reject(retry_after: Duration) -> Self {
        Self { inner: CallOrReject::reject(CircuitBreakerError::Open { retry_after }), call: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    type Output = Result<T, CircuitBreakerError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Some(call) = this.call.take() {
            call.end(match &result {
                Ok(response) => response.failure(),
                Err(error) => Some(error.kind()),
            });
        }
        Poll::Ready(result)
    }
}
