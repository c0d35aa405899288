use std::sync::Arc;

use crate::error::{ErrorKind, layer_error};

/// The caller's time was up, the shared run panicked, or the inner service failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CoalesceError<E> {
    /// The deadline of this call passed. The run goes on for those who still wait for it.
    Elapsed,
    /// The shared run panicked when it was polled for another call.
    Panicked,
    /// The inner service failed. All calls that share the run are told.
    Inner(Arc<E>),
}

layer_error!(CoalesceError(Inner) {
    Self::Elapsed => ErrorKind::DeadlineExceeded, None, "the deadline passed while waiting for a shared run";
    Self::Panicked => ErrorKind::Internal, None, "the shared run panicked";
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
