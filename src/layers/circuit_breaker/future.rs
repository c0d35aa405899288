use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::CircuitBreakerError;
use super::circuit::Pass;
use crate::error::Classify;
use crate::service::ResponseContext;

/// The answer of a [`CircuitBreaker`](super::CircuitBreaker).
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
        pass: Pass,
    },
    Refused {
        retry_after: Duration,
    },
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F, pass: Pass) -> Self {
        Self { state: State::Called { inner, pass } }
    }

    #[inline]
    pub(super) fn refused(retry_after: Duration) -> Self {
        Self { state: State::Refused { retry_after } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: Classify,
{
    type Output = Result<T, CircuitBreakerError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner, pass } => {
                let result = ready!(inner.poll(cx));
                pass.end(match &result {
                    Ok(response) => response.failure(),
                    Err(error) => Some(error.kind()),
                });
                Poll::Ready(result.map_err(CircuitBreakerError::Inner))
            }
            StateProj::Refused { retry_after } => {
                Poll::Ready(Err(CircuitBreakerError::Open { retry_after: *retry_after }))
            }
        }
    }
}
