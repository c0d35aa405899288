use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The call was refused, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadShedError<E> {
    /// The inner service was not ready. It was not called.
    NotReady,
    /// What is ahead leaves no time for the call. The inner service was not called.
    Late {
        /// How long the call was expected to wait.
        predicted_wait: Duration,
        /// When a call like this one is expected to be let in, if nothing else comes.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(LoadShedError(Inner) {
    Self::NotReady => ErrorKind::Overloaded, None, "the service is full";
    Self::Late { predicted_wait, retry_after } => ErrorKind::Overloaded, Some(*retry_after),
        "the work ahead is expected to take {predicted_wait:?}, which is too long for this call";
});
