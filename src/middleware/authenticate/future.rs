use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::AuthenticateError;

/// The answer of an [`Authenticate`](super::Authenticate).
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
    Refused {
        /// `None` once it has been told.
        error: Option<AuthenticateError<Infallible>>,
    },
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F) -> Self {
        Self { state: State::Called { inner } }
    }

    #[cold]
    pub(super) fn refused(error: AuthenticateError<Infallible>) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, AuthenticateError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner } => inner.poll(cx).map_err(AuthenticateError::Inner),
            StateProj::Refused { error } => {
                let error = error.take().expect("polled after it had completed");
                Poll::Ready(Err(error.around()))
            }
        }
    }
}
