use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use super::CircuitBreakerError;
use super::circuit::Pass;
use super::first::First;
use crate::error::{Classify, ErrorKind};
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
        call: Call,
    },
    Refused {
        retry_after: Duration,
    },
}

/// Where the call counts.
#[derive(Debug)]
pub(super) enum Call {
    Let(Pass),
    /// Its operation has no circuit yet.
    First(Box<First>),
}

impl Call {
    #[inline(always)]
    fn end(&mut self, kind: Option<ErrorKind>) {
        match self {
            Self::Let(pass) => pass.end(kind),
            Self::First(first) => first.end(kind),
        }
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F, call: Call) -> Self {
        Self { state: State::Called { inner, call } }
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

    // Always: handing the answer on from a frame of its own costs as much as all that is counted.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner, call } => {
                let result = ready!(inner.poll(cx));
                call.end(match &result {
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
