//! An error of the pipeline as a gRPC status with the standard's details.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{AnyError, Classification, Classify, ErrorKind, Hidden, Told, find};
use crate::panics::Panicked;
use crate::request::http::of_grpc_code;
use crate::service::InvalidInput;

/// A status travels in the trailers, which most clients bound to 8 or 16 KiB, and up to three times this goes into it.
const MAX_TEXT: usize = 1024;

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: ErrorKind,
    message: String,
    /// What only the log is told.
    hidden: Option<Box<Hidden>>,
    violation: Option<InvalidInput>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// The message of an internal error goes to the log, and its client is told the kind and the request's id.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::told(kind, Told::new(kind, message.into()))
    }

    fn told(kind: ErrorKind, Told { detail, hidden }: Told) -> Self {
        Self { kind, message: detail, hidden, violation: None, retry_after: None }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn of(error: &impl AnyError) -> Self {
        let Classification { kind, retry_after, .. } = error.classify();
        let told = Self::told(kind, Told::of(error));
        Self { violation: find(error.as_error()).cloned(), retry_after, ..told }
    }

    /// Of a service that panicked.
    pub(super) fn panicked(panicked: &Panicked) -> Self {
        Self::new(ErrorKind::Internal, format!("the service panicked: {panicked}"))
    }

    /// For the log: which kernel was to run.
    pub(super) fn of_kernel(mut self, id: &str) -> Self {
        if let Some(hidden) = &mut self.hidden {
            hidden.set_kernel(id);
        }
        self
    }

    pub(super) fn into_status(self, request_id: Option<&str>) -> Status {
        if let Some(hidden) = &self.hidden {
            hidden.log(request_id);
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(self.kind.code(), DOMAIN, HashMap::new());
        if let Some(id) = request_id {
            details.set_request_info(id, "");
        }
        if let Some(InvalidInput { field, reason }) = self.violation {
            details.add_bad_request_violation(cut(field), cut(reason));
        }
        if let Some(wait) = self.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(Code::from_i32(self.kind.grpc_code()), cut(self.message), details)
    }
}

/// The domain of this crate's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tower-kernels";

/// For calls of other gRPC services beneath the layers. A server of this crate tells the kind in the details of its
/// statuses; for others it follows from the code.
impl Classify for Status {
    fn kind(&self) -> ErrorKind {
        let told = self.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let kind = told.and_then(|info| ErrorKind::ALL.into_iter().find(|kind| kind.code() == info.reason));
        kind.unwrap_or_else(|| of_grpc_code(self.code().into()))
    }

    fn retry_after(&self) -> Option<Duration> {
        self.get_details_retry_info()?.retry_delay
    }
}

impl From<InvalidInput> for Refusal {
    fn from(invalid: InvalidInput) -> Self {
        let message = invalid.to_string();
        Self { violation: Some(invalid), ..Self::new(ErrorKind::InvalidArgument, message) }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The status as a message, for an answer inside a stream.
pub(super) fn as_message(status: &Status) -> tonic_types::Status {
    match tonic_types::Status::decode(status.details()) {
        // The details are this message, written whole; a status without any has an empty one.
        Ok(message) if message.code != 0 => message,
        _ => tonic_types::Status { code: status.code().into(), message: status.message().into(), details: Vec::new() },
    }
}
