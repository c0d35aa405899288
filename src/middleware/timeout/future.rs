use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::TimeoutError;
use crate::middleware::lazy_timer::LazyTimer;

pin_project! {
    /// The response future of a [`Timeout`](super::Timeout).
    ///
    /// # Panics
    /// If the inner future is pending and there is no Tokio runtime with time enabled.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called {
            #[pin]
            inner: F,
            #[pin]
            timer: LazyTimer,
        },
        // The deadline had passed before the call.
        Late,
        Elapsed,
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F, deadline: Option<Instant>) -> Self {
        Self { state: State::Called { inner, timer: LazyTimer::new(deadline) } }
    }

    pub(super) fn late() -> Self {
        Self { state: State::Late }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, TimeoutError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let called = match state.as_mut().project() {
            StateProj::Called { inner, timer } => {
                // The inner future first: a response that is there is not thrown away.
                if let Poll::Ready(result) = inner.poll(cx) {
                    return Poll::Ready(result.map_err(TimeoutError::Inner));
                }
                ready!(timer.poll_elapsed(cx));
                true
            }
            StateProj::Late => false,
            StateProj::Elapsed => panic!("polled after it had completed"),
        };
        // Drops the inner future, so that its work stops now and not when the caller drops this one.
        state.set(State::Elapsed);
        Poll::Ready(Err(TimeoutError::Elapsed { called }))
    }
}
