//! Writes `google.rpc.Status` messages, the rich errors of gRPC.
//!
//! Messages and field numbers are those of [`google/rpc/status.proto` and
//! `google/rpc/error_details.proto`](https://github.com/googleapis/googleapis/tree/master/google/rpc). They are derived
//! here, as [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer) writes them without tonic.

use std::time::Duration as StdDuration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

use super::ErrorKind;
use crate::text::truncated;

/// Most clients accept 8 to 16 KiB of trailers. A percent-encoded text is up to three times as long, and the details
/// repeat it.
pub(crate) const MAX_TEXT_BYTES: usize = 1024;

/// `domain` of this crate's `google.rpc.ErrorInfo`.
#[cfg(feature = "grpc")]
pub(crate) const ERROR_DOMAIN: &str = "tower-kernels";

/// `Percent-Encoded` of the [gRPC specification](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): ASCII from
/// space to tilde is not encoded, except the percent sign.
const PERCENT_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The longest `google.protobuf.Duration`: 10 000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// Creates a status of this kind. `message` is truncated to [`MAX_TEXT_BYTES`].
    pub(crate) fn new(kind: ErrorKind, message: String) -> Self {
        Self { code: kind.grpc_code(), message: truncated(message, MAX_TEXT_BYTES), details: Vec::new() }
    }

    /// Adds a `google.rpc.RetryInfo`.
    pub(crate) fn add_retry_info(&mut self, retry_after: StdDuration) {
        let seconds = retry_after.as_secs().min(MAX_SECONDS) as i64;
        let retry_delay = Some(Duration { seconds, nanos: retry_after.subsec_nanos() as i32 });
        self.add_detail("RetryInfo", &RetryInfo { retry_delay });
    }

    fn add_detail(&mut self, name: &str, detail: &impl Message) {
        let type_url = format!("type.googleapis.com/google.rpc.{name}");
        self.details.push(Any { type_url, value: detail.encode_to_vec() });
    }

    /// Writes `grpc-status`, `grpc-message` and, if there are details, `grpc-status-details-bin`.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("grpc-status"), self.code.into());
        let message = utf8_percent_encode(&self.message, PERCENT_ENCODED).to_string();
        headers.insert(HeaderName::from_static("grpc-message"), visible_ascii(message));
        if !self.details.is_empty() {
            // Without padding, as the specification says of binary headers.
            let details = visible_ascii(STANDARD_NO_PAD.encode(self.encode_to_vec()));
            headers.insert(HeaderName::from_static("grpc-status-details-bin"), details);
        }
    }
}

fn visible_ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("both encodings produce visible ASCII")
}

#[cfg(feature = "grpc")]
mod server_details {
    //! Details that the gRPC server adds.

    use super::{ERROR_DOMAIN, ErrorKind, MAX_TEXT_BYTES, Message, Status, truncated};

    /// `google.rpc.ErrorInfo`, without its `metadata`.
    #[derive(Clone, PartialEq, Message)]
    struct ErrorInfo {
        #[prost(string, tag = "1")]
        reason: String,
        #[prost(string, tag = "2")]
        domain: String,
    }

    /// `google.rpc.RequestInfo`.
    #[derive(Clone, PartialEq, Message)]
    struct RequestInfo {
        #[prost(string, tag = "1")]
        request_id: String,
    }

    /// `google.rpc.BadRequest`.
    #[derive(Clone, PartialEq, Message)]
    struct BadRequest {
        #[prost(message, repeated, tag = "1")]
        field_violations: Vec<FieldViolation>,
    }

    /// `google.rpc.BadRequest.FieldViolation`.
    #[derive(Clone, PartialEq, Message)]
    struct FieldViolation {
        #[prost(string, tag = "1")]
        field: String,
        #[prost(string, tag = "2")]
        description: String,
    }

    impl Status {
        /// Adds a `google.rpc.ErrorInfo` with the [code](ErrorKind::code) of the error.
        pub(crate) fn add_error_info(&mut self, kind: ErrorKind) {
            let (reason, domain) = (kind.code().to_owned(), ERROR_DOMAIN.to_owned());
            self.add_detail("ErrorInfo", &ErrorInfo { reason, domain });
        }

        /// Adds a `google.rpc.RequestInfo`.
        pub(crate) fn add_request_info(&mut self, request_id: &str) {
            self.add_detail("RequestInfo", &RequestInfo { request_id: request_id.to_owned() });
        }

        /// Adds a `google.rpc.BadRequest` with one field violation.
        pub(crate) fn add_field_violation(&mut self, field: String, description: String) {
            let (field, description) = (truncated(field, MAX_TEXT_BYTES), truncated(description, MAX_TEXT_BYTES));
            self.add_detail(
                "BadRequest",
                &BadRequest { field_violations: vec![FieldViolation { field, description }] },
            );
        }

        /// Converts to tonic's status.
        pub(crate) fn into_tonic(self) -> tonic::Status {
            let details = self.encode_to_vec().into();
            tonic::Status::with_details(self.code.into(), self.message, details)
        }
    }
}
