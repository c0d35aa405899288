//! Writes problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), the error responses of HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::{ErrorKind, OutcomeCode};

/// Content type of a problem document.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// `WWW-Authenticate` value for a 401 whose error has none.
const DEFAULT_CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"kernels\"");

/// `Retry-After` value for a 429 or 503 whose error has none.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Error codes that only HTTP has, with their statuses. Their kind is [`ErrorKind::InvalidArgument`].
pub(crate) const HTTP_ONLY_CODES: [(StatusCode, &str); 3] =
    [METHOD_NOT_ALLOWED, REQUEST_TIMEOUT, UNSUPPORTED_MEDIA_TYPE];
pub(crate) const METHOD_NOT_ALLOWED: (StatusCode, &str) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
pub(crate) const REQUEST_TIMEOUT: (StatusCode, &str) = (StatusCode::REQUEST_TIMEOUT, "request_timeout");
pub(crate) const UNSUPPORTED_MEDIA_TYPE: (StatusCode, &str) =
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");

/// A problem document after RFC 9457.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(any(feature = "axum", feature = "hyper"), derive(schemars::JsonSchema), schemars(rename = "Problem", transform = require_request_id))]
pub(crate) struct ProblemDocument {
    /// Reason phrase of the status.
    title: &'static str,
    /// HTTP status of the response.
    status: u16,
    /// Machine-readable error code.
    #[cfg_attr(any(feature = "axum", feature = "hyper"), schemars(extend("enum" = codes())))]
    code: &'static str,
    /// Human-readable description of the error.
    detail: String,
    /// Field of the request that is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// `x-request-id` of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(any(feature = "axum", feature = "hyper"), schemars(with = "String"))]
    request_id: Option<String>,
}

impl ProblemDocument {
    /// Creates a document of this status and error code, with neither `field` nor `request_id`.
    pub(crate) fn new((status, code): (StatusCode, &'static str), detail: impl Into<String>) -> Self {
        let (title, status) = (title(status), status.as_u16());
        Self { title, status, code, detail: detail.into(), field: None, request_id: None }
    }

    /// Sets the field of the request that is invalid.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn with_field(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    /// Sets the id of the request.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn with_request_id(self, id: &str) -> Self {
        Self { request_id: Some(id.to_owned()), ..self }
    }

    /// Returns the description of the error.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Serializes the document.
    pub(crate) fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and a number are JSON").into()
    }

    /// Creates the response. It has a `Retry-After` header if `retry_after` is known or the status calls for one, and
    /// `WWW-Authenticate` with a 401.
    ///
    /// A layer does not know the id of its request. So the extensions of a response without one contain this document,
    /// for a server further out to add the id.
    pub(crate) fn into_response(
        self,
        retry_after: Option<Duration>,
        challenge: Option<&HeaderValue>,
    ) -> Response<Bytes> {
        let status = StatusCode::from_u16(self.status).expect("made from a status");
        let mut response = Response::new(self.to_json());
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        set_retry_after(response.headers_mut(), status, retry_after);
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 requires it.
            let challenge = challenge.unwrap_or(&DEFAULT_CHALLENGE).clone();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(OutcomeCode(self.code));
        if self.request_id.is_none() {
            response.extensions_mut().insert(self);
        }
        response
    }
}

/// Every document that a server sends has the id, though that of a layer does not.
#[cfg(any(feature = "axum", feature = "hyper"))]
fn require_request_id(schema: &mut schemars::Schema) {
    let required = schema.as_object_mut().and_then(|schema| schema.get_mut("required")?.as_array_mut());
    required.expect("other fields are required").push("request_id".into());
}

/// HTTP status and code of an error of this kind.
pub(crate) fn status_and_code(kind: ErrorKind) -> (StatusCode, &'static str) {
    (StatusCode::from_u16(kind.http_status()).expect("the table contains valid statuses"), kind.code())
}

/// All error codes.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn codes() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.code()).chain(HTTP_ONLY_CODES.map(|(_, code)| code)).collect()
}

/// Reason phrase of a status. 499 is nginx's, and the only one in the table that is not registered.
pub(crate) fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Client Closed Request")
}

/// Whether error responses of this status always have a `Retry-After` header.
pub(crate) fn has_retry_after(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

fn set_retry_after(headers: &mut HeaderMap, status: StatusCode, retry_after: Option<Duration>) {
    if let Some(wait) = retry_after.or(has_retry_after(status).then_some(DEFAULT_RETRY_AFTER)) {
        // Whole seconds, rounded up, as a client that retries early is rejected again.
        headers.insert(header::RETRY_AFTER, (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).into());
    }
}

#[cfg(all(test, any(feature = "axum", feature = "hyper")))]
mod tests {
    use super::*;

    #[test]
    fn the_schema_requires_what_every_document_of_a_server_has() {
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<ProblemDocument>().to_value();
        assert_eq!(schema["required"], serde_json::json!(["title", "status", "code", "detail", "request_id"]));
        assert_eq!(schema["properties"]["request_id"]["type"], "string");
        assert_eq!(schema["properties"]["code"]["enum"], serde_json::json!(codes()));
    }
}
