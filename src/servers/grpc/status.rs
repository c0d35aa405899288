//! Errors as gRPC statuses, and gRPC statuses as errors.

use std::time::Duration;

use prost::Message;
use tonic::Status;
use tonic_types::StatusExt;

use crate::error::grpc_status::{self, ERROR_DOMAIN};
use crate::error::{AnyError, Classification, Classify, ClientMessage, ErrorKind, InternalMessage, find};
use crate::panics::Panicked;
use crate::request::http::kind_of_grpc_code;
use crate::service::InvalidInput;

/// An error response that has not been written yet, as the id of its request is added last.
#[derive(Debug)]
pub(super) struct Rejection {
    kind: ErrorKind,
    message: String,
    /// The text of an internal error, which is logged and not sent.
    internal: Option<Box<InternalMessage>>,
    violation: Option<InvalidInput>,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// An error of this kind. The message of an internal error is logged and not sent.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::with_message(kind, ClientMessage::new(kind, message.into()))
    }

    fn with_message(kind: ErrorKind, ClientMessage { text, internal }: ClientMessage) -> Self {
        Self { kind, message: text, internal, violation: None, retry_after: None }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An error and its causes, joined by colons.
    pub(super) fn of(error: &impl AnyError) -> Self {
        let Classification { kind, retry_after, .. } = error.classify();
        let rejection = Self::with_message(kind, ClientMessage::of(error));
        Self { violation: find(error.as_error()).cloned(), retry_after, ..rejection }
    }

    /// The service panicked.
    pub(super) fn panicked(panicked: &Panicked) -> Self {
        Self::new(ErrorKind::Internal, format!("the service panicked: {panicked}"))
    }

    /// Sets the kernel that is logged with an internal error.
    pub(super) fn of_kernel(mut self, id: &str) -> Self {
        if let Some(internal) = &mut self.internal {
            internal.set_kernel(id);
        }
        self
    }

    /// Creates the status, with the standard's details. Logs an internal error.
    pub(super) fn into_status(self, request_id: Option<&str>) -> Status {
        if let Some(internal) = &self.internal {
            internal.log(request_id);
        }
        let mut status = grpc_status::Status::new(self.kind, self.message);
        status.add_error_info(self.kind);
        if let Some(id) = request_id {
            status.add_request_info(id);
        }
        if let Some(InvalidInput { field, reason }) = self.violation {
            status.add_field_violation(field, reason);
        }
        if let Some(wait) = self.retry_after {
            status.add_retry_info(wait);
        }
        status.into_tonic()
    }
}

impl From<InvalidInput> for Rejection {
    fn from(invalid: InvalidInput) -> Self {
        let message = invalid.to_string();
        Self { violation: Some(invalid), ..Self::new(ErrorKind::InvalidArgument, message) }
    }
}

/// For clients of gRPC services under the layers. The kind is that of the `ErrorInfo` detail if the server is one of
/// this crate, and otherwise follows from the status code.
impl Classify for Status {
    fn kind(&self) -> ErrorKind {
        let info = self.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let kind = info.and_then(|info| ErrorKind::ALL.into_iter().find(|kind| kind.code() == info.reason));
        kind.unwrap_or_else(|| kind_of_grpc_code(self.code().into()))
    }

    fn retry_after(&self) -> Option<Duration> {
        self.get_details_retry_info()?.retry_delay
    }
}

/// Converts a status to the message that a stream's response contains.
pub(super) fn as_message(status: &Status) -> tonic_types::Status {
    match tonic_types::Status::decode(status.details()) {
        // The details of a status are this message; those of one without details are empty.
        Ok(message) if message.code != 0 => message,
        _ => tonic_types::Status { code: status.code().into(), message: status.message().into(), details: Vec::new() },
    }
}
