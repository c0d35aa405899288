use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::actix::MailboxError;
use ::actix::dev::SendError;
use tower::BoxError;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};
use crate::middleware::timeout::TimeoutError;

/// Room is made whenever a message is answered, which most are within a second.
const FULL_FOR: Duration = Duration::from_secs(1);

/// Why a message was not answered as it asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActorError {
    /// The actor has as many unanswered messages as it may have. Given at once.
    #[error("the mailbox of {name} is full: {capacity} messages are not answered yet")]
    MailboxFull {
        /// The actor's name.
        name: Arc<str>,
        /// How many unanswered messages it may have.
        capacity: usize,
    },
    /// The deadline passed.
    #[error("the deadline passed {}", if *.called { "before the answer was there" } else { "before there was room to run" })]
    DeadlineExceeded {
        /// Whether the service had been called. If not, nothing was begun.
        called: bool,
    },
    /// The actor ended before it answered, or had ended before.
    #[error("the actor is gone")]
    ActorGone,
    /// The supervisor has no actors.
    #[error("no actor has been spawned")]
    NoActor,
    /// What the service says.
    #[error(transparent)]
    Service(ServiceError),
}

impl ActorError {
    pub(super) fn service(error: impl AnyError + Into<BoxError>) -> Self {
        let Classification { kind, retry_after, .. } = error.classify();
        Self::Service(ServiceError { kind, retry_after, error: error.into() })
    }
}

impl Classify for ActorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::MailboxFull { .. } => ErrorKind::Overloaded,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::ActorGone | Self::NoActor => ErrorKind::Unavailable,
            Self::Service(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::MailboxFull { .. } => Some(FULL_FOR),
            Self::Service(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl<E: AnyError + Into<BoxError>> From<TimeoutError<E>> for ActorError {
    fn from(error: TimeoutError<E>) -> Self {
        match error {
            TimeoutError::Elapsed { called } => Self::DeadlineExceeded { called },
            TimeoutError::Inner(error) => Self::service(error),
        }
    }
}

/// So that `addr.send(message).await??` can end in this one error.
impl From<MailboxError> for ActorError {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Closed => Self::ActorGone,
            // The caller's own bound, set with `addr.send(message).timeout(..)`.
            MailboxError::Timeout => Self::DeadlineExceeded { called: true },
        }
    }
}

/// The error of an actor's service.
///
/// The type of a message fixes the type of its answer, whatever service answers it. So the service's own type is not part
/// of this one, but what it says of itself is, and [`downcast_ref`](Self::downcast_ref) has the rest.
#[derive(Debug)]
pub struct ServiceError {
    kind: ErrorKind,
    retry_after: Option<Duration>,
    error: BoxError,
}

impl ServiceError {
    /// The error itself, where the service's error type is `E`: a [`KernelError`](crate::service::KernelError) where no
    /// layers are around the kernel service.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }
}

/// Of an internal error it says no more than that it is one, as an actor's caller may pass it on to a client: what the
/// error says is its [source](Error::source).
impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Internal => f.write_str("the service failed with an internal error"),
            _ => self.error.fmt(f),
        }
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self.kind {
            ErrorKind::Internal => Some(&*self.error),
            _ => self.error.source(),
        }
    }
}

impl Classify for ServiceError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// What actix says where it does not deliver a message that it was to wait for.
impl Classify for MailboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::Unavailable,
            Self::Timeout => ErrorKind::DeadlineExceeded,
        }
    }
}

/// What actix says where it does not take a message that it was not to wait for.
impl<T> Classify for SendError<T> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::Overloaded,
            Self::Closed(_) => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Full(_)).then_some(FULL_FOR)
    }
}
