use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

/// The response of an [`Optional`](super::Optional).
#[pin_project(project = ResponseFutureProj)]
#[derive(Debug)]
pub enum ResponseFuture<A, B> {
    /// Of the service in the layer.
    Layered {
        /// Its future.
        #[pin]
        inner: A,
    },
    /// Of the service without it.
    Plain {
        /// Its future.
        #[pin]
        inner: B,
    },
}

impl<A, B, T, E, F> Future for ResponseFuture<A, B>
where
    A: Future<Output = Result<T, E>>,
    B: Future<Output = Result<T, F>>,
    E: From<F>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseFutureProj::Layered { inner } => inner.poll(cx),
            ResponseFutureProj::Plain { inner } => inner.poll(cx).map_err(E::from),
        }
    }
}
