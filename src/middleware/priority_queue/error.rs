use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The call did not get its turn, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PriorityQueueError<E> {
    /// As many wait as may, and none of them had to make room for this call.
    Full {
        /// In what time those that are before it will have had their turn, at the pace of the last turns. Not known before
        /// there were some.
        retry_after: Option<Duration>,
    },
    /// The call waited, and gave up its place to one of a tenant with less waiting, or of the same tenant and more urgent.
    Displaced {
        /// As for a call that found the queue full.
        retry_after: Option<Duration>,
    },
    /// The deadline passed before the call had its turn. Nothing was begun.
    Expired,
    /// The call would not be answered by its deadline any more. Nothing was begun.
    Late {
        /// As for a call that found the queue full.
        retry_after: Option<Duration>,
    },
    /// The task that hands out the turns has ended: the inner service panicked when it was asked whether it is ready, or
    /// the runtime was shut down. The next call starts another.
    Stopped,
    /// The inner service failed.
    Inner(E),
}

layer_error!(PriorityQueueError(Inner) {
    Self::Full { retry_after } => ErrorKind::Overloaded, *retry_after, "the queue is full";
    Self::Displaced { retry_after } => ErrorKind::Overloaded, *retry_after,
        "a more urgent call, or one of a tenant with less waiting, took the place in the queue";
    Self::Expired => ErrorKind::DeadlineExceeded, None, "the time was up before it was the call's turn";
    // The deadline has not passed, and it is for want of time that nothing was begun: no fault of who would have run it.
    Self::Late { retry_after } => ErrorKind::Overloaded, *retry_after,
        "too little time was left for an answer when it could have been the call's turn";
    Self::Stopped => ErrorKind::Unavailable, None, "the task that hands out the queue's turns has ended";
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

impl Refusal {
    /// The same as an error around an inner service.
    pub(super) fn around<E>(self) -> PriorityQueueError<E> {
        match self {
            Self::Full { retry_after } => PriorityQueueError::Full { retry_after },
            Self::Displaced { retry_after } => PriorityQueueError::Displaced { retry_after },
            Self::Expired => PriorityQueueError::Expired,
            Self::Late { retry_after } => PriorityQueueError::Late { retry_after },
            Self::Stopped => PriorityQueueError::Stopped,
        }
    }
}
