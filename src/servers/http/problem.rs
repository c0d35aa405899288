//! Refusals as [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) wants them, and answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, Version};
use schemars::JsonSchema;
use serde::Serialize;

use super::RequestId;
use crate::error::{AnyError, Classification, ErrorKind, Hidden, OutcomeCode, Told, chain, find};
use crate::middleware::error_response::problem;
use crate::service::InvalidInput;

/// A refusal: `application/problem+json` with `title`, `status`, `code`, `detail`, `request_id`, and `field` where one
/// field of the request is to blame.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    /// In a box, as few have one.
    challenge: Option<Box<HeaderValue>>,
    allow: Option<&'static str>,
    closes: bool,
    kind: ErrorKind,
    /// What only the log is told.
    hidden: Option<Box<Hidden>>,
}

/// The document of a refusal, after RFC 9457.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemDocument<'a> {
    /// The status in words.
    title: &'a str,
    /// The status of the response.
    status: u16,
    /// What kind of refusal it is, for programs.
    #[schemars(extend("enum" = Problem::codes()))]
    code: &'a str,
    /// What is wrong, for people.
    detail: &'a str,
    /// The field of the request that is to blame, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// The response's `x-request-id`.
    request_id: &'a str,
}

impl Problem {
    /// The statuses that are HTTP's alone, each the client's mistake, and their codes.
    pub(crate) const OF_HTTP: [(StatusCode, &'static str); 3] =
        [Self::METHOD_NOT_ALLOWED, Self::REQUEST_TIMEOUT, Self::UNSUPPORTED_MEDIA_TYPE];
    const METHOD_NOT_ALLOWED: (StatusCode, &'static str) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    const REQUEST_TIMEOUT: (StatusCode, &'static str) = (StatusCode::REQUEST_TIMEOUT, "request_timeout");
    const UNSUPPORTED_MEDIA_TYPE: (StatusCode, &'static str) =
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");

    /// Texts may repeat what the client sent, of which there can be much.
    const MAX_DETAIL: usize = 2048;

    /// A refusal of this kind, by the table of [`error`](crate::error). The detail of an internal error goes to the log,
    /// and its client is told the kind and the request's id.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).expect("the table holds statuses");
        Self::with_status((status, kind.code()), kind, detail.into())
    }

    /// Every code that there is.
    pub(crate) fn codes() -> Vec<&'static str> {
        ErrorKind::ALL.iter().map(|kind| kind.code()).chain(Self::OF_HTTP.map(|(_, code)| code)).collect()
    }

    /// What an error says of itself, its causes joined by colons.
    pub(crate) fn of(error: &impl AnyError) -> Self {
        let Classification { kind, retry_after, challenge } = error.classify();
        let error = error.as_error();
        let mut problem = Self::new(kind, chain(error).to_string());
        problem.retry_after = retry_after;
        problem.challenge = challenge.map(Box::new);
        problem.field = find::<InvalidInput>(error).map(|invalid| invalid.field.clone());
        problem.shorten()
    }

    /// 405: the path is there and takes only `allow`.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem = Self::of_http(Self::METHOD_NOT_ALLOWED, format!("only {allow} is allowed here"));
        problem.allow = Some(allow);
        problem
    }

    /// 405 from where the response has its `Allow` already.
    #[cfg(feature = "axum")]
    pub(crate) fn no_such_method(detail: impl Into<String>) -> Self {
        Self::of_http(Self::METHOD_NOT_ALLOWED, detail.into())
    }

    /// 415.
    pub(crate) fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::of_http(Self::UNSUPPORTED_MEDIA_TYPE, detail.into())
    }

    /// 408: the client took too long to send its request, which nobody waits for any more.
    pub(crate) fn request_timeout(detail: impl Into<String>) -> Self {
        Self::of_http(Self::REQUEST_TIMEOUT, detail.into()).closing()
    }

    fn of_http(status_and_code: (StatusCode, &'static str), detail: String) -> Self {
        Self::with_status(status_and_code, ErrorKind::InvalidArgument, detail)
    }

    fn with_status((status, code): (StatusCode, &'static str), kind: ErrorKind, detail: String) -> Self {
        let Told { detail, hidden } = Told::new(kind, detail);
        let (field, retry_after, challenge, allow, closes) = (None, None, None, None, false);
        Self { status, code, detail, field, retry_after, challenge, allow, closes, kind, hidden }.shorten()
    }

    /// For the log: which kernel was to run.
    #[must_use]
    pub(crate) fn of_kernel(mut self, id: &str) -> Self {
        if let Some(hidden) = &mut self.hidden {
            hidden.set_kernel(id);
        }
        self
    }

    /// Ends the connection after it: the rest of the body is not read, and another request cannot be told from it. hyper
    /// closes the connection by itself, and says nothing of it in the head.
    #[must_use]
    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// For a request of this version: from HTTP/2 on, what ends is the request's own stream and not the connection.
    #[must_use]
    pub(crate) fn over(mut self, version: Version) -> Self {
        self.closes &= version <= Version::HTTP_11;
        self
    }

    /// With the field that is to blame.
    #[must_use]
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self.shorten()
    }

    /// Its code: that of its kind, or one of [`OF_HTTP`](Self::OF_HTTP).
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// What kind of refusal it is. Those that have a status of HTTP's alone are the client's mistake.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn shorten(mut self) -> Self {
        for text in self.field.iter_mut().chain([&mut self.detail]) {
            if text.len() > Self::MAX_DETAIL {
                let cut = (0..=Self::MAX_DETAIL).rev().find(|&at| text.is_char_boundary(at));
                text.truncate(cut.unwrap_or(0));
                text.push('…');
            }
        }
        self
    }

    /// The response that says so.
    pub(crate) fn into_response<B: From<Bytes>>(self, request_id: &RequestId) -> Response<B> {
        if let Some(hidden) = &self.hidden {
            hidden.log(Some(request_id.as_str()));
        }
        let body = ProblemDocument {
            title: problem::title(self.status),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field.as_deref(),
            request_id: request_id.as_str(),
        };
        let body = serde_json::to_vec(&body).expect("strings and a number are JSON");
        let mut response = document(self.status, problem::CONTENT_TYPE, body.into(), request_id);
        response.extensions_mut().insert(OutcomeCode(self.code));
        let headers = response.headers_mut();
        problem::say_how_to_come_back(headers, self.status, self.retry_after, self.challenge.as_deref());
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<InvalidInput> for Problem {
    fn from(invalid: InvalidInput) -> Self {
        Self::new(ErrorKind::InvalidArgument, invalid.to_string()).field(invalid.field)
    }
}

/// A response of this status and type, under the request's id.
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

    fn answer(problem: Problem) -> (Response<Bytes>, serde_json::Value) {
        let response: Response<Bytes> = problem.into_response(&RequestId::of(&http::HeaderMap::new()));
        let document = serde_json::from_slice(response.body()).unwrap();
        (response, document)
    }

    #[test]
    fn an_error_and_its_causes_are_one_text_and_the_field_is_named() {
        let error = TimeoutError::Inner(KernelError::InvalidInput(InvalidInput::new("x[3]", "it is not finite")));
        let (response, document) = answer(Problem::of(&error));
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(document["detail"], "the input is invalid: x[3]: it is not finite");
        assert_eq!((&document["field"], &document["code"]), (&"x[3]".into(), &"invalid_argument".into()));
        assert_eq!(document["request_id"], *response.headers()[RequestId::HEADER].to_str().unwrap());
    }

    #[test]
    fn the_wait_is_rounded_up_and_never_missing_where_it_is_due() {
        let mut problem = Problem::new(ErrorKind::RateLimited, "slower");
        problem.retry_after = Some(Duration::from_millis(2001));
        assert_eq!(answer(problem).0.headers()[RETRY_AFTER], "3");
        for kind in ErrorKind::ALL {
            let due = matches!(kind.http_status(), 429 | 503);
            assert_eq!(answer(Problem::new(kind, "")).0.headers().contains_key(RETRY_AFTER), due, "{kind}");
        }
    }

    #[test]
    fn a_body_that_is_not_waited_for_ends_a_connection_of_http_1_and_a_stream_of_http_2() {
        for (version, closes) in [(Version::HTTP_10, true), (Version::HTTP_11, true), (Version::HTTP_2, false)] {
            let (response, _) = answer(Problem::request_timeout("too late").over(version));
            assert_eq!(response.headers().get(CONNECTION).is_some_and(|value| value == "close"), closes, "{version:?}");
        }
        assert!(!answer(Problem::new(ErrorKind::TooLarge, "no room")).0.headers().contains_key(CONNECTION));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let (_, document) = answer(Problem::from(InvalidInput::new("é".repeat(5000), "too long")));
        for text in ["detail", "field"] {
            assert!(document[text].as_str().unwrap().len() <= Problem::MAX_DETAIL + '…'.len_utf8());
        }
    }
}
