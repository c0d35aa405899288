use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// No place, and none to wait in; or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FairError<E> {
    /// As many calls of this tenant wait as may.
    Full {
        /// How many wait, of all tenants.
        waiting: usize,
    },
    /// No place came up in time. The inner service was not called.
    Waited {
        /// How long the call waited.
        waited: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(FairError(Inner) {
    Self::Full { waiting } => ErrorKind::Overloaded, None, "no place is free, and {waiting} calls wait for one already";
    Self::Waited { waited } => ErrorKind::Overloaded, None, "no place came up within {waited:?}";
});
