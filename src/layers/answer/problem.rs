//! Problem documents after RFC 9457.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::Refusal;

pub(super) fn response<B: From<Bytes>>(refusal: &Refusal) -> Response<B> {
    let status = StatusCode::from_u16(refusal.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Client Closed Request"),
        "status": status.as_u16(),
        "code": refusal.kind.code(),
        "detail": refusal.detail,
    });
    let mut response = Response::new(B::from(document.to_string().into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // Whoever is told to come back is told when: in a moment, if nothing more is known.
    let due = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if let Some(wait) = refusal.retry_after.or(due.then_some(Duration::from_secs(1))) {
        // Whole seconds, and not before the time is up.
        headers.insert(header::RETRY_AFTER, (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).into());
    }
    // A 401 without it is none, says RFC 9110: it tells how to come back with a credential.
    if status == StatusCode::UNAUTHORIZED {
        let challenge = refusal.challenge.clone().unwrap_or(HeaderValue::from_static("Bearer realm=\"kernels\""));
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
