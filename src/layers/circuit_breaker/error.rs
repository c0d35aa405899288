use std::time::Duration;

use crate::error::{ErrorKind, classify_layer};

/// The circuit is open, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitBreakerError<E> {
    /// Too many calls have failed, so this one was not made.
    #[error("the circuit is open: too many calls have failed; the next is tried in {retry_after:?}")]
    Open {
        /// The time until the next probe.
        retry_after: Duration,
    },
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(CircuitBreakerError {
    Self::Open { retry_after } => ErrorKind::Unavailable, Some(*retry_after);
});
