use std::time::Duration;

use crate::error::{ErrorKind, classify_layer};

/// No place, and none to wait in; or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FairError<E> {
    /// As many calls of this tenant wait as may.
    #[error("no place is free, and {waiting} calls wait for one already")]
    Full {
        /// How many wait, of all tenants.
        waiting: usize,
    },
    /// No place came up in time. The inner service was not called.
    #[error("no place came up within {waited:?}")]
    Waited {
        /// How long the call waited.
        waited: Duration,
    },
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(FairError {
    Self::Full { .. } | Self::Waited { .. } => ErrorKind::Overloaded, None;
});
