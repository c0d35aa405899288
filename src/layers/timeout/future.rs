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
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProj)]
#[derive(Debug)]
enum State<F> {
    Called {
        #[pin]
        inner: F,
        #[pin]
        timer: Timer,
    },
    /// The deadline had passed before the call.
    Refused,
    Done,
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn new(inner: F, deadline: Option<Instant>) -> Self {
        Self { state: State::Called { inner, timer: Timer::new(deadline) } }
    }

    #[inline]
    pub(super) fn elapsed() -> Self {
        Self { state: State::Refused }
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
                // The inner future first: an answer that is there is not thrown away.
                if let Poll::Ready(result) = inner.poll(cx) {
                    return Poll::Ready(result.map_err(TimeoutError::Inner));
                }
                ready!(timer.poll_elapsed(cx));
                true
            }
            StateProj::Refused => false,
            StateProj::Done => panic!("polled after it had completed"),
        };
        state.set(State::Done);
        Poll::Ready(Err(TimeoutError::Elapsed { called }))
    }
}

/// A deadline whose [`Sleep`] is made at the first poll.
#[pin_project]
#[derive(Debug)]
pub(super) struct Timer {
    deadline: Option<Instant>,
    #[pin]
    sleep: Option<Sleep>,
}

impl Timer {
    #[inline]
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, sleep: None }
    }

    /// Ready once the deadline has passed; without one, never.
    ///
    /// An inner future that loops on a Tokio resource until its budget is used up leaves none for the timer, which
    /// would then never fire. So the timer is polled outside the budget: it does no more than look at the time.
    pub(super) fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
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
