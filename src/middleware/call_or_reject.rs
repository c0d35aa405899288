use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The response future of a layer that either calls the inner service or rejects the call.
    ///
    /// `E` is the layer's error, which the inner error converts into.
    #[derive(Debug)]
    pub struct CallOrReject<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F, E> {
        Called {
            #[pin]
            inner: F,
        },
        // `None` once the error has been returned.
        Rejected {
            error: Option<E>,
        },
    }
}

impl<F, E> CallOrReject<F, E> {
    /// Resolves as `inner` does.
    #[inline]
    pub(super) fn call(inner: F) -> Self {
        Self { state: State::Called { inner } }
    }

    /// Resolves to `error` at the first poll.
    #[inline]
    pub(super) fn reject(error: E) -> Self {
        Self { state: State::Rejected { error: Some(error) } }
    }
}

impl<F, T, E, I> Future for CallOrReject<F, E>
where
    F: Future<Output = Result<T, I>>,
    E: From<I>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner } => inner.poll(cx).map_err(E::from),
            StateProj::Rejected { error } => Poll::Ready(Err(error.take().expect("polled after it had completed"))),
        }
    }
}
