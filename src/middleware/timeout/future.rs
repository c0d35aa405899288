use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Sleep, sleep_until};

use super::TimeoutError;

/// The answer of a [`Timeout`](super::Timeout).
///
/// # Panics
/// Where the inner future is pending, polling needs a Tokio runtime with time enabled.
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    /// `None` where the deadline had passed before the call, and after it has passed.
    #[pin]
    inner: Option<F>,
    #[pin]
    timer: Timer,
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(inner: Option<F>, deadline: Option<Instant>) -> Self {
        Self { inner, timer: Timer::new(deadline) }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, TimeoutError<E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The inner future first: an answer that is there is not thrown away.
        if let Some(inner) = self.as_mut().project().inner.as_pin_mut() {
            let polled = inner.poll(cx);
            if polled.is_ready() {
                return polled.map_err(TimeoutError::Inner);
            }
        }
        let called = ready!(self.poll_elapsed(cx));
        Poll::Ready(Err(TimeoutError::Elapsed { called }))
    }
}

impl<F> ResponseFuture<F> {
    /// Ready once the deadline has passed, with whether the inner service was called.
    // Apart, so that an answer that is there at once is not made to keep room for it.
    #[inline(never)]
    fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut this = self.project();
        let called = this.inner.is_some();
        if called {
            ready!(this.timer.as_mut().poll_elapsed(cx));
            // The work stops now, and not when the caller drops what is left.
            this.inner.set(None);
        }
        // Without a deadline nothing ends here, so that there is none any more marks the end.
        assert!(this.timer.project().deadline.take().is_some(), "polled after it had completed");
        Poll::Ready(called)
    }
}

/// A deadline whose [`Sleep`] is made at the first poll.
#[pin_project]
#[derive(Debug)]
pub(in crate::middleware) struct Timer {
    deadline: Option<Instant>,
    #[pin]
    sleep: Option<Sleep>,
}

impl Timer {
    #[inline]
    pub(in crate::middleware) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, sleep: None }
    }

    /// Ready once the deadline has passed; without one, never.
    ///
    /// An inner future that loops on a Tokio resource until its budget is used up leaves none for the timer, which
    /// would then never fire. So the timer is polled outside the budget: it does no more than look at the time.
    pub(in crate::middleware) fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(deadline.into())));
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => Pin::new(&mut unconstrained(sleep)).poll(cx),
            None => Poll::Pending,
        }
    }
}
