use std::time::Duration;

use crate::error::{ErrorKind, classify_layer};

/// The call did not get its turn, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PriorityQueueError<E> {
    /// As many wait as may, and none of them had to make room for this call.
    #[error("the queue is full")]
    Full {
        /// In what time those that are before it will have had their turn, at the pace of the last turns. Not known before
        /// there were some.
        retry_after: Option<Duration>,
    },
    /// The call waited, and gave up its place to one of a tenant with less waiting, or of the same tenant and more urgent.
    #[error("a more urgent call, or one of a tenant with less waiting, took the place in the queue")]
    Displaced {
        /// As for a call that found the queue full.
        retry_after: Option<Duration>,
    },
    /// The deadline passed before the call had its turn. Nothing was begun.
    #[error("the time was up before it was the call's turn")]
    Expired,
    /// The call would not be answered by its deadline any more. Nothing was begun.
    #[error("too little time was left for an answer when it could have been the call's turn")]
    Late {
        /// As for a call that found the queue full.
        retry_after: Option<Duration>,
    },
    /// The task that hands out the turns has ended: the inner service panicked when it was asked whether it is ready, or
    /// the runtime was shut down. The next call starts another.
    #[error("the task that hands out the queue's turns has ended")]
    Stopped,
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(PriorityQueueError {
    Self::Full { retry_after } => ErrorKind::Overloaded, *retry_after;
    Self::Displaced { retry_after } => ErrorKind::Overloaded, *retry_after;
    Self::Expired => ErrorKind::DeadlineExceeded, None;
    // The deadline has not passed, and it is for want of time that nothing was begun: no fault of who would have run it.
    Self::Late { retry_after } => ErrorKind::Overloaded, *retry_after;
    Self::Stopped => ErrorKind::Unavailable, None;
});

/// The same without the inner service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full { retry_after: Option<Duration> },
    Displaced { retry_after: Option<Duration> },
    Expired,
    Late { retry_after: Option<Duration> },
    Stopped,
}

impl<E> From<Refusal> for PriorityQueueError<E> {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full { retry_after } => Self::Full { retry_after },
            Refusal::Displaced { retry_after } => Self::Displaced { retry_after },
            Refusal::Expired => Self::Expired,
            Refusal::Late { retry_after } => Self::Late { retry_after },
            Refusal::Stopped => Self::Stopped,
        }
    }
}
