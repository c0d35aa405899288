use std::sync::Arc;

use crate::error::{ErrorKind, layer_error};

/// The request was not run, or the inner service failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The deadline passed before the batch was sent.
    Expired,
    /// The task that sends or runs the batch has ended: it panicked, its runtime was shut down, or there is no runtime.
    Stopped,
    /// The inner service has returned fewer responses than the batch had requests.
    MissingResponse,
    /// The inner service failed with the whole batch, or in `poll_ready`: all its requests have the same error.
    Shared(Arc<E>),
    /// The inner service failed with this request.
    Inner(E),
}

layer_error!(BatchError(Inner, Shared) {
    Self::Expired => ErrorKind::DeadlineExceeded, None, "the deadline passed before the batch was sent";
    Self::Stopped => ErrorKind::Unavailable, None, "the task that runs the batch has ended without a response";
    Self::MissingResponse => ErrorKind::Internal, None, "the response to the batch has none for this request";
});
