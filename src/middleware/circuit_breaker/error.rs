use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The circuit is open, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitBreakerError<E> {
    /// Too many calls have failed, so this one was not made.
    Open {
        /// The time until the next probe.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(CircuitBreakerError(Inner) {
    Self::Open { retry_after } => ErrorKind::Unavailable, Some(*retry_after),
        "the circuit is open: too many calls have failed; the next is tried in {retry_after:?}";
});
