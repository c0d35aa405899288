use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The call was rejected, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadShedError<E> {
    /// The inner service was not ready. It was not called.
    NotReady,
    /// The call would wait too long behind the work ahead of it. The inner service was not called.
    Late {
        /// How long the call was expected to wait.
        predicted_wait: Duration,
        /// When such a call is expected to be admitted, if no other comes.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(LoadShedError(Inner) {
    Self::NotReady => ErrorKind::Overloaded, None, "the service is at capacity";
    Self::Late { predicted_wait, retry_after } => ErrorKind::Overloaded, Some(*retry_after),
        "the expected wait of {predicted_wait:?} is too long for this call";
});
