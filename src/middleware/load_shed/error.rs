use std::convert::Infallible;
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

impl LoadShedError<Infallible> {
    /// The same rejection, of a layer around a service with the error `E`.
    pub(super) fn for_inner<E>(self) -> LoadShedError<E> {
        match self {
            Self::NotReady => LoadShedError::NotReady,
            Self::Late { predicted_wait, retry_after } => LoadShedError::Late { predicted_wait, retry_after },
            Self::Inner(never) => match never {},
        }
    }
}

layer_error!(LoadShedError(Inner) {
    Self::NotReady => ErrorKind::Overloaded, None, "the service is at capacity";
    Self::Late { predicted_wait, retry_after } => ErrorKind::Overloaded, Some(*retry_after),
        "the call is expected to be late, after a wait of {predicted_wait:?}";
});
