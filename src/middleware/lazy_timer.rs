//! A timer that costs nothing until something has to be waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Sleep, sleep_until};

pin_project! {
    /// A deadline whose [`Sleep`] is created at the first poll, so that a future that is ready at once registers no timer.
    #[derive(Debug)]
    pub(crate) struct LazyTimer {
        deadline: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl LazyTimer {
    /// A timer that never elapses where there is no deadline.
    #[inline]
    pub(crate) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, sleep: None }
    }

    /// Ready once the deadline has passed.
    ///
    /// An inner future that loops on a Tokio resource until its budget is used up leaves none for the timer, which
    /// would then never fire. So the timer is polled outside the budget: it only compares the time.
    pub(crate) fn poll_elapsed(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
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
