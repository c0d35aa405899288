//! Problem documents after RFC 9457, and what goes with them whoever writes them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{FromBytes, Rejection};
use crate::error::OutcomeCode;

pub(crate) const CONTENT_TYPE: &str = "application/problem+json";
/// Where a server does not say how to come back with a credential.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"kernels\"");
/// Where 429 and 503 do not say when to come back: in a moment.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn response<B: FromBytes>(rejection: &Rejection) -> Response<B> {
    let status = StatusCode::from_u16(rejection.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = serde_json::json!({
        "title": title(status),
        "status": status.as_u16(),
        "code": rejection.kind.code(),
        "detail": rejection.detail,
    });
    let mut response = Response::new(B::from_bytes(document.to_string().into()));
    *response.status_mut() = status;
    response.extensions_mut().insert(OutcomeCode(rejection.kind.code()));
    #[cfg(any(feature = "axum", feature = "hyper"))]
    response.extensions_mut().insert(Unnamed(document));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    say_how_to_come_back(headers, status, rejection.retry_after, rejection.challenge.as_ref());
    response
}

/// The document of a response that does not name its request: a layer keeps no more of a request than it needs, and what
/// is further out may know.
#[cfg(any(feature = "axum", feature = "hyper"))]
#[derive(Clone, Debug)]
pub(crate) struct Unnamed(serde_json::Value);

#[cfg(any(feature = "axum", feature = "hyper"))]
impl Unnamed {
    /// The same document, with the id of its request.
    pub(crate) fn named(mut self, request_id: &str) -> bytes::Bytes {
        self.0["request_id"] = request_id.into();
        self.0.to_string().into()
    }
}

/// What a status of a rejection is called. 499 is nginx's, and the only one that is not registered.
pub(crate) fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Client Closed Request")
}

/// Whether a rejection of this status says when to come back.
pub(crate) fn says_when(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// `Retry-After` where it is known or due, and `WWW-Authenticate` with a 401.
pub(crate) fn say_how_to_come_back(
    headers: &mut HeaderMap,
    status: StatusCode,
    retry_after: Option<Duration>,
    challenge: Option<&HeaderValue>,
) {
    if let Some(wait) = retry_after.or(says_when(status).then_some(RETRY_AFTER)) {
        // Whole seconds, rounded up: a client that comes back early is rejected again.
        headers.insert(header::RETRY_AFTER, (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).into());
    }
    // A 401 without it is none, says RFC 9110.
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, challenge.unwrap_or(&CHALLENGE).clone());
    }
}
