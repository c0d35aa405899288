use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The response future of an [`Optional`](super::Optional).
    #[derive(Debug)]
    pub struct ResponseFuture<A, B> {
        #[pin]
        state: State<A, B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<A, B> {
        Layered {
            #[pin]
            inner: A,
        },
        Plain {
            #[pin]
            inner: B,
        },
    }
}

impl<A, B> ResponseFuture<A, B> {
    #[inline]
    pub(super) fn layered(inner: A) -> Self {
        Self { state: State::Layered { inner } }
    }

    #[inline]
    pub(super) fn plain(inner: B) -> Self {
        Self { state: State::Plain { inner } }
    }
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
        match self.project().state.project() {
            StateProj::Layered { inner } => inner.poll(cx),
            StateProj::Plain { inner } => inner.poll(cx).map_err(E::from),
        }
    }
}
