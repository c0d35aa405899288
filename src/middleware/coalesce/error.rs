use std::sync::Arc;

use crate::error::{ErrorKind, layer_error};

/// Error of [`Coalesce`](super::Coalesce): the deadline passed, the shared run panicked, or the inner service failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CoalesceError<E> {
    /// The deadline of this call passed. The run continues for the other callers.
    Elapsed,
    /// The shared run panicked when another call polled it.
    Panicked,
    /// The inner service failed. All calls of the run share the error.
    Inner(Arc<E>),
}

layer_error!(CoalesceError(Inner) {
    Self::Elapsed => ErrorKind::DeadlineExceeded, None, "the deadline passed while waiting for a shared run";
    Self::Panicked => ErrorKind::Internal, None, "the shared run panicked";
});

// By hand, as a derive would require `E: Clone`.
impl<E> Clone for CoalesceError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Elapsed => Self::Elapsed,
            Self::Panicked => Self::Panicked,
            Self::Inner(error) => Self::Inner(Arc::clone(error)),
        }
    }
}
