use std::time::Duration;

use crate::error::{ErrorKind, classify_layer};

/// The call was refused, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadShedError<E> {
    /// The inner service was not ready. It was not called.
    #[error("the service is full")]
    NotReady,
    /// What is ahead leaves no time for the call. The inner service was not called.
    #[error("the work ahead is expected to take {predicted_wait:?}, which is too long for this call")]
    Late {
        /// How long the call was expected to wait.
        predicted_wait: Duration,
        /// When a call like this one is expected to be let in, if nothing else comes.
        retry_after: Duration,
    },
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(LoadShedError {
    Self::NotReady => ErrorKind::Overloaded, None;
    Self::Late { retry_after, .. } => ErrorKind::Overloaded, Some(*retry_after);
});
