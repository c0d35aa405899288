use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::CircuitBreakerError;
use super::circuit::Pass;
use super::first::First;
use crate::error::{AnyError, ErrorKind};
use crate::request::ResponseContext;

/// The answer of a [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
    /// Of a call that was made, where there is a breaker. Beside the state and not in it, so that the inner future is made in
    /// its place.
    call: Option<Call>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Called {
        #[pin]
        inner: F,
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
    pub(super) fn called(inner: F, call: Option<Call>) -> Self {
        Self { state: State::Called { inner }, call }
    }

    #[inline]
    pub(super) fn refused(retry_after: Duration) -> Self {
        Self { state: State::Refused { retry_after }, call: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    T: ResponseContext,
    E: AnyError,
{
    type Output = Result<T, CircuitBreakerError<E>>;

    // Always: handing the answer on from a frame of its own costs as much as all that is counted.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProj::Called { inner } => {
                // Looked at where it is: to take it out would be to move it.
                let polled = inner.poll(cx);
                if let (Poll::Ready(result), Some(call)) = (&polled, this.call) {
                    call.end(match result {
                        Ok(response) => response.failure(),
                        Err(error) => Some(error.classify().kind),
                    });
                }
                polled.map_err(CircuitBreakerError::Inner)
            }
            StateProj::Refused { retry_after } => {
                Poll::Ready(Err(CircuitBreakerError::Open { retry_after: *retry_after }))
            }
        }
    }
}
