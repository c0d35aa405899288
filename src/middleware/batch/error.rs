use std::sync::Arc;

use crate::error::{ErrorKind, layer_error};

/// The request was not run, or the inner service failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The deadline passed while the request waited for its batch to be sent.
    Expired,
    /// The task that ran the batch is gone: it panicked, or its runtime has been shut down, or there is none.
    Stopped,
    /// The inner service has answered fewer requests than the batch had.
    Unanswered,
    /// The inner service failed, with the whole of a batch or before there was one: all of them have the same error.
    Shared(Arc<E>),
    /// The inner service failed with this request.
    Inner(E),
}

layer_error!(BatchError(Inner, Shared) {
    Self::Expired => ErrorKind::DeadlineExceeded, None, "the deadline passed before the batch was sent";
    Self::Stopped => ErrorKind::Unavailable, None, "the task that ran the batch has ended without an answer";
    Self::Unanswered => ErrorKind::Internal, None,
        "the batch was answered in part, without an answer to this request";
});
