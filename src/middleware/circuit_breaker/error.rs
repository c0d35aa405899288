use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// Error of [`CircuitBreaker`](super::CircuitBreaker): the circuit is open, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitBreakerError<E> {
    /// The call was rejected because too many have failed.
    Open {
        /// The time until the next call can be admitted.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(CircuitBreakerError(Inner) {
    Self::Open { retry_after } => ErrorKind::Unavailable, Some(*retry_after),
        "the circuit is open as too many calls have failed; retry after {retry_after:?}";
});
