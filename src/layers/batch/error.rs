use std::sync::Arc;

use crate::error::{ErrorKind, classify_layer};

/// The request was not run, or the inner service failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The deadline passed while the request waited for its batch to be sent.
    #[error("the deadline passed before the batch was sent")]
    Expired,
    /// The task that ran the batch is gone: it panicked, or its runtime has been shut down, or there is none.
    #[error("the task that ran the batch has ended without an answer")]
    Stopped,
    /// The inner service has answered fewer requests than the batch had.
    #[error("the batch was answered in part, without an answer to this request")]
    Unanswered,
    /// The inner service failed, with the whole of a batch or before there was one: all of them have the same error.
    #[error(transparent)]
    Shared(Arc<E>),
    /// The inner service failed with this request.
    #[error(transparent)]
    Inner(E),
}

classify_layer!(BatchError {
    Self::Expired => ErrorKind::DeadlineExceeded, None;
    Self::Stopped => ErrorKind::Unavailable, None;
    Self::Unanswered => ErrorKind::Internal, None;
    Self::Shared(error) => error.kind(), error.retry_after();
});

/// So that a service over this one can refuse in the terms of the inner service.
impl<E> From<E> for BatchError<E> {
    fn from(error: E) -> Self {
        Self::Inner(error)
    }
}
