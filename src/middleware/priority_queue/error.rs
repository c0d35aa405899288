use std::convert::Infallible;
use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The call was not served, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PriorityQueueError<E> {
    /// The queue is full, and no waiting call had to make room for this one.
    Full {
        /// When the calls ahead of it will have been served, at the present rate; `None` before a rate is known.
        retry_after: Option<Duration>,
    },
    /// The call waited, and was displaced by a call of a tenant with less waiting, or by a more urgent call of its own tenant.
    Displaced {
        /// As for [`Full`](Self::Full).
        retry_after: Option<Duration>,
    },
    /// The deadline passed before the call was served. The inner service was not called.
    Expired,
    /// Too little time is left until the deadline for a call of this kind. The inner service was not called.
    Late {
        /// As for [`Full`](Self::Full).
        retry_after: Option<Duration>,
    },
    /// The queue's worker task has ended: the inner service panicked in `poll_ready`, or the runtime was shut down. The next
    /// call that has to wait starts another.
    Stopped,
    /// The inner service failed.
    Inner(E),
}

/// A call that did not reach the inner service.
pub(super) type Rejection = PriorityQueueError<Infallible>;

impl Rejection {
    pub(super) fn into_error<E>(self) -> PriorityQueueError<E> {
        match self {
            Self::Full { retry_after } => PriorityQueueError::Full { retry_after },
            Self::Displaced { retry_after } => PriorityQueueError::Displaced { retry_after },
            Self::Expired => PriorityQueueError::Expired,
            Self::Late { retry_after } => PriorityQueueError::Late { retry_after },
            Self::Stopped => PriorityQueueError::Stopped,
            Self::Inner(never) => match never {},
        }
    }
}

layer_error!(PriorityQueueError(Inner) {
    Self::Full { retry_after } => ErrorKind::Overloaded, *retry_after, "the queue is full";
    Self::Displaced { retry_after } => ErrorKind::Overloaded, *retry_after,
        "displaced from the queue by a more urgent call, or by one of a tenant with fewer calls waiting";
    Self::Expired => ErrorKind::DeadlineExceeded, None, "the deadline passed while the call waited in the queue";
    // The deadline has not passed yet, so this is overload and no failure of the service that would have been called.
    Self::Late { retry_after } => ErrorKind::Overloaded, *retry_after,
        "too little time is left until the deadline for a call that has to wait in the queue";
    Self::Stopped => ErrorKind::Unavailable, None, "the worker task of the queue has ended";
});
