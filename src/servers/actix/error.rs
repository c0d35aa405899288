use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::actix::MailboxError;
use ::actix::dev::SendError;
use tower::BoxError;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};
use crate::middleware::timeout::TimeoutError;

/// Most messages are answered within a second, which frees capacity.
const FULL_FOR: Duration = Duration::from_secs(1);

/// Error of an [`ExecuteKernel`](super::ExecuteKernel) message.
#[derive(Debug)]
#[non_exhaustive]
pub enum ActorError {
    /// The actor has its maximum number of unanswered messages.
    MailboxFull {
        /// Name of the actor.
        name: Arc<str>,
        /// Maximum number of unanswered messages.
        capacity: usize,
    },
    /// Deadline exceeded.
    DeadlineExceeded {
        /// Whether the service had been called. If not, the kernel has not started.
        called: bool,
    },
    /// The actor ended before it responded.
    ActorGone,
    /// The supervisor has no actors.
    NoActor,
    /// Error of the service.
    Service(ServiceError),
}

impl fmt::Display for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MailboxFull { name, capacity } => {
                write!(f, "the mailbox of {name} is full: {capacity} messages are unanswered")
            }
            Self::DeadlineExceeded { called: true } => f.write_str("deadline exceeded while the kernel ran"),
            Self::DeadlineExceeded { called: false } => f.write_str("deadline exceeded while waiting for readiness"),
            Self::ActorGone => f.write_str("the actor has ended"),
            Self::NoActor => f.write_str("no actor has been spawned"),
            Self::Service(error) => error.fmt(f),
        }
    }
}

// Not derived by thiserror, so that `provide` classifies the error inside of any box.
impl Error for ActorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::Service(error) => error.source(),
            _ => None,
        }
    }
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

/// Lets `addr.send(message).await??` return one error type.
impl From<MailboxError> for ActorError {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Closed => Self::ActorGone,
            // Set with `addr.send(message).timeout(..)`.
            MailboxError::Timeout => Self::DeadlineExceeded { called: true },
        }
    }
}

/// Error of an actor's service.
///
/// The result type of a message cannot depend on the service of the actor, so the error is boxed. Its kind and
/// retry-after are kept, and [`downcast_ref`](Self::downcast_ref) returns the error itself.
#[derive(Debug)]
pub struct ServiceError {
    kind: ErrorKind,
    retry_after: Option<Duration>,
    error: BoxError,
}

impl ServiceError {
    /// Returns the error itself if its type is `E`: a [`KernelError`](crate::service::KernelError) if the service has
    /// no layers.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }
}

/// Hides the text of an internal error, as it may be sent to a client. The text is that of the [source](Error::source).
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

/// For `Addr::send`.
impl Classify for MailboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::Unavailable,
            Self::Timeout => ErrorKind::DeadlineExceeded,
        }
    }
}

/// For `Addr::try_send`.
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
