//! Error responses of the REST servers: problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, Version};

use super::ErrorForm;
use crate::error::problem::{
    METHOD_NOT_ALLOWED, ProblemDocument, REQUEST_TIMEOUT, UNSUPPORTED_MEDIA_TYPE, status_and_code,
};
use crate::error::{AnyError, Classification, ClientMessage, ErrorKind, InternalMessage, chain, find};
use crate::request::request_id::RequestId;
use crate::service::InvalidInput;
use crate::text::truncated;

/// An error response that has not been written yet, as the id of its request is added last.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    /// Boxed, because few responses have one.
    challenge: Option<Box<HeaderValue>>,
    /// Boxed, so that results with a problem stay small.
    allow: Option<Box<str>>,
    closes_connection: bool,
    kind: ErrorKind,
    /// The text of an internal error, which is logged and not sent.
    internal: Option<Box<InternalMessage>>,
}

impl Problem {
    /// `detail` and `field` can repeat what the client sent, which can be long.
    const MAX_TEXT_BYTES: usize = 2048;

    /// An error of this kind, with the status of the [table](crate::error). The detail of an internal error is logged
    /// and not sent.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self::with_status(status_and_code(kind), kind, detail.into())
    }

    /// An error and its causes, joined by colons.
    pub(crate) fn of(error: &impl AnyError) -> Self {
        let Classification { kind, retry_after, challenge } = error.classify();
        let error = error.as_error();
        let mut problem = Self::new(kind, chain(error).to_string());
        problem.retry_after = retry_after;
        problem.challenge = challenge.map(Box::new);
        match find::<InvalidInput>(error) {
            Some(invalid) => problem.field(invalid.field.clone()),
            None => problem,
        }
    }

    /// 405: the path has the methods `allowed`, and not this one.
    pub(crate) fn method_not_allowed(method: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        let detail = format!("the path does not allow {method}; allowed: {allowed}");
        let mut problem = Self::http_only(METHOD_NOT_ALLOWED, detail);
        problem.allow = Some(allowed.into());
        problem
    }

    /// 415.
    pub(crate) fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::http_only(UNSUPPORTED_MEDIA_TYPE, detail.into())
    }

    /// 408: the client took too long to send its request. Closes the connection.
    pub(crate) fn request_timeout(detail: impl Into<String>) -> Self {
        Self::http_only(REQUEST_TIMEOUT, detail.into()).closing()
    }

    fn http_only(status_and_code: (StatusCode, &'static str), detail: String) -> Self {
        Self::with_status(status_and_code, ErrorKind::InvalidArgument, detail)
    }

    fn with_status((status, code): (StatusCode, &'static str), kind: ErrorKind, detail: String) -> Self {
        let ClientMessage { text, internal } = ClientMessage::new(kind, detail);
        Self {
            status,
            code,
            detail: truncated(text, Self::MAX_TEXT_BYTES),
            field: None,
            retry_after: None,
            challenge: None,
            allow: None,
            closes_connection: false,
            kind,
            internal,
        }
    }

    /// Sets the kernel that is logged with an internal error.
    #[must_use]
    pub(crate) fn of_kernel(mut self, id: &str) -> Self {
        if let Some(internal) = &mut self.internal {
            internal.set_kernel(id);
        }
        self
    }

    /// Closes the connection after the response: the rest of the body is not read, so the next request cannot be found.
    /// hyper closes the connection by itself, but does not send `connection: close`.
    #[must_use]
    pub(crate) fn closing(mut self) -> Self {
        self.closes_connection = true;
        self
    }

    /// Sets the HTTP version of the request: from HTTP/2 on, only the request's own stream ends and not the connection.
    #[must_use]
    pub(crate) fn over(mut self, version: Version) -> Self {
        self.closes_connection &= version <= Version::HTTP_11;
        self
    }

    /// Sets the field of the request that is invalid.
    #[must_use]
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(truncated(field.into(), Self::MAX_TEXT_BYTES));
        self
    }

    /// The error code: that of the kind, or one of [`HTTP_ONLY_CODES`](crate::error::problem::HTTP_ONLY_CODES).
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The kind of the error.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Writes the response in this form. Logs an internal error.
    pub(crate) fn into_response<B: From<Bytes>>(self, form: ErrorForm, request_id: &RequestId) -> Response<B> {
        if let Some(internal) = &self.internal {
            internal.log(Some(request_id.as_str()));
        }
        let document = ProblemDocument::new((self.status, self.code), self.detail).with_field(self.field);
        let mut response = document.into_response(self.retry_after, self.challenge.as_deref());
        form.complete(&mut response, request_id);
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_str(&allow).expect("methods are visible ASCII"));
        }
        if self.closes_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(B::from)
    }
}

impl From<InvalidInput> for Problem {
    fn from(invalid: InvalidInput) -> Self {
        Self::new(ErrorKind::InvalidArgument, invalid.to_string()).field(invalid.field)
    }
}

/// Creates a response with this status and content type and the `x-request-id` header.
pub(crate) fn document<B: From<Bytes>>(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    request_id: &RequestId,
) -> Response<B> {
    let mut response = Response::new(B::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(RequestId::HEADER, request_id.value().clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::timeout::TimeoutError;
    use crate::service::KernelError;
    use http::header::RETRY_AFTER;

    fn respond(problem: Problem) -> (Response<Bytes>, serde_json::Value) {
        let response: Response<Bytes> = problem.into_response(ErrorForm::Problem, &RequestId::generate());
        let document = serde_json::from_slice(response.body()).unwrap();
        (response, document)
    }

    #[test]
    fn an_error_and_its_causes_are_one_text_and_the_field_is_named() {
        let error = TimeoutError::Inner(KernelError::InvalidInput(InvalidInput::new("x[3]", "it is not finite")));
        let (response, document) = respond(Problem::of(&error));
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(document["detail"], "the input is invalid: x[3]: it is not finite");
        assert_eq!((&document["field"], &document["code"]), (&"x[3]".into(), &"invalid_argument".into()));
        assert_eq!(document["request_id"], *response.headers()[RequestId::HEADER].to_str().unwrap());
    }

    #[test]
    fn below_v2_an_error_is_its_text() {
        for (path, form) in [
            ("/v2", ErrorForm::Inference),
            ("/v2/models/a/infer", ErrorForm::Inference),
            ("/v20", ErrorForm::Problem),
            ("/kernels/v2/models", ErrorForm::Problem),
        ] {
            assert_eq!(ErrorForm::of_path(path, true), form, "{path}");
            assert_eq!(ErrorForm::of_path(path, false), ErrorForm::Problem, "{path}");
        }
        let id = RequestId::generate();
        let response: Response<Bytes> =
            Problem::new(ErrorKind::Overloaded, "full").into_response(ErrorForm::Inference, &id);
        assert_eq!((response.status().as_u16(), &response.body()[..]), (503, &br#"{"error":"full"}"#[..]));
        let headers = response.headers();
        assert_eq!(
            (&headers[CONTENT_TYPE], &headers[RequestId::HEADER]),
            (&HeaderValue::from_static("application/json"), id.value())
        );
        assert!(headers.contains_key(RETRY_AFTER));
    }

    #[test]
    fn retry_after_is_rounded_up_and_always_present_with_429_and_503() {
        let mut problem = Problem::new(ErrorKind::RateLimited, "slower");
        problem.retry_after = Some(Duration::from_millis(2001));
        assert_eq!(respond(problem).0.headers()[RETRY_AFTER], "3");
        for kind in ErrorKind::ALL {
            let due = matches!(kind.http_status(), 429 | 503);
            assert_eq!(respond(Problem::new(kind, "")).0.headers().contains_key(RETRY_AFTER), due, "{kind}");
        }
    }

    #[test]
    fn a_body_that_is_not_read_closes_a_connection_of_http_1_and_a_stream_of_http_2() {
        for (version, closes) in [(Version::HTTP_10, true), (Version::HTTP_11, true), (Version::HTTP_2, false)] {
            let (response, _) = respond(Problem::request_timeout("too late").over(version));
            assert_eq!(response.headers().get(CONNECTION).is_some_and(|value| value == "close"), closes, "{version:?}");
        }
        assert!(!respond(Problem::new(ErrorKind::TooLarge, "too large")).0.headers().contains_key(CONNECTION));
    }

    #[test]
    fn long_texts_are_truncated_between_characters() {
        let (_, document) = respond(Problem::from(InvalidInput::new("é".repeat(5000), "too long")));
        for text in ["detail", "field"] {
            assert!(document[text].as_str().unwrap().len() <= Problem::MAX_TEXT_BYTES + '…'.len_utf8());
        }
    }
}
