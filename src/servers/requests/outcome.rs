//! Outcome of a response, for metrics and logs.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::counts::OUTCOMES;
use crate::error::{ErrorKind, OutcomeCode};

/// A constant, because a name given as text is parsed at each look-up.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Outcome according to the head of a response; `None` if its trailers have it, as with gRPC.
pub(super) fn of_head(status: StatusCode, headers: &HeaderMap, extensions: &Extensions) -> Option<&'static str> {
    if let Some(OutcomeCode(code)) = extensions.get() {
        return Some(code);
    }
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if headers.get(http::header::CONTENT_TYPE).is_some_and(is_grpc) {
        let outcome = of_grpc(headers);
        if outcome.is_some() || status == StatusCode::OK {
            return outcome;
        }
    }
    Some(of_status(status))
}

/// Outcome according to headers or trailers of gRPC, if they have the status.
pub(super) fn of_grpc(headers: &HeaderMap) -> Option<&'static str> {
    let number = headers.get(GRPC_STATUS)?.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    if number == 0 {
        return Some("ok");
    }
    Some(reason(headers).unwrap_or_else(|| of_code(number)))
}

/// `reason` of the details of a status, as several kinds share a code.
#[cfg(feature = "grpc")]
fn reason(headers: &HeaderMap) -> Option<&'static str> {
    use tonic_types::StatusExt;
    let reason = tonic::Status::from_header_map(headers)?.get_details_error_info()?.reason;
    OUTCOMES.into_iter().find(|known| *known == reason)
}

#[cfg(not(feature = "grpc"))]
fn reason(_: &HeaderMap) -> Option<&'static str> {
    None
}

/// Outcome of a status without details, such as those of tonic.
fn of_code(number: i32) -> &'static str {
    let known = ErrorKind::ALL.into_iter().find(|kind| kind.grpc_code() == number);
    match (number, known) {
        // Two kinds have this code.
        (14, _) => ErrorKind::Unavailable,
        (_, Some(kind)) => kind,
        // Already exists, permission denied, failed precondition, aborted.
        (6 | 7 | 9 | 10, None) => ErrorKind::InvalidArgument,
        (_, None) => ErrorKind::Internal,
    }
    .code()
}

fn of_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        405 => "method_not_allowed",
        408 => "request_timeout",
        415 => "unsupported_media_type",
        503 => ErrorKind::Unavailable.code(),
        code => {
            let known = ErrorKind::ALL.into_iter().find(|kind| kind.http_status() == code);
            match (known, status.is_client_error(), status.is_server_error()) {
                (Some(kind), ..) => kind.code(),
                (None, true, _) => ErrorKind::InvalidArgument.code(),
                (None, _, true) => ErrorKind::Internal.code(),
                (None, false, false) => OUTCOMES[0],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_outcome() {
        for (status, outcome) in [
            (200, "ok"),
            (304, "ok"),
            (400, "invalid_argument"),
            (403, "invalid_argument"),
            (401, "unauthenticated"),
            (405, "method_not_allowed"),
            (408, "request_timeout"),
            (413, "too_large"),
            (415, "unsupported_media_type"),
            (429, "rate_limited"),
            (502, "internal"),
            (503, "unavailable"),
            (504, "deadline_exceeded"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_head(status, &HeaderMap::new(), &Extensions::new()), Some(outcome), "{status}");
            assert!(OUTCOMES.contains(&outcome));
        }
    }

    #[test]
    fn a_status_of_grpc_counts_before_that_of_http() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        let of = |headers: &HeaderMap| of_head(StatusCode::OK, headers, &Extensions::new());
        assert_eq!(of(&headers), None);
        for (status, outcome) in [("0", "ok"), ("4", "deadline_exceeded"), ("14", "unavailable"), ("x", "internal")] {
            headers.insert("grpc-status", HeaderValue::from_static(status));
            assert_eq!(of(&headers), Some(outcome), "{status}");
        }
        let mut marked = Extensions::new();
        marked.insert(OutcomeCode("overloaded"));
        assert_eq!(of_head(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), &marked), Some("overloaded"));
    }
}
