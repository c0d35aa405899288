use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The call got no permit, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FairError<E> {
    /// The tenant may have no further call waiting.
    Full {
        /// Waiting calls of all tenants.
        waiting: usize,
    },
    /// No permit became free in time. The inner service was not called.
    TimedOut {
        /// How long the call waited.
        waited: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(FairError(Inner) {
    Self::Full { waiting } => ErrorKind::Overloaded, None,
        "the concurrency limit is reached, and {waiting} calls wait already";
    Self::TimedOut { waited } => ErrorKind::Overloaded, None, "the concurrency limit was reached for {waited:?}";
});
