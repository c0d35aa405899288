use std::sync::Arc;

use crate::error::{ErrorKind, classify_layer};

/// The caller's time was up, the shared run panicked, or the inner service failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoalesceError<E> {
    /// The deadline of this call passed. The run goes on for those who still wait for it.
    #[error("the deadline passed while waiting for a shared run")]
    Elapsed,
    /// The shared run panicked when it was polled for another call.
    #[error("the shared run panicked")]
    Panicked,
    /// The inner service failed. All calls that share the run are told.
    #[error(transparent)]
    Inner(Arc<E>),
}

classify_layer!(CoalesceError {
    Self::Elapsed => ErrorKind::DeadlineExceeded, None;
    Self::Panicked => ErrorKind::Internal, None;
});

// By hand: a clone needs no `E: Clone`, the error is shared.
impl<E> Clone for CoalesceError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Elapsed => Self::Elapsed,
            Self::Panicked => Self::Panicked,
            Self::Inner(error) => Self::Inner(Arc::clone(error)),
        }
    }
}
