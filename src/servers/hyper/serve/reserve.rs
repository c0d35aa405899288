//! Connections past the most that there may be, kept for health probes.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};

use crate::error::ErrorKind;
use crate::middleware::answer::{ByContentType, Protocol, Refusal};

/// Which requests may come over a connection that is past the most that there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    pub(super) is_probe: fn(&str) -> bool,
}

impl Reserve {
    /// The response to a request that is no probe: 503 or UNAVAILABLE, after which HTTP/1.1 closes the connection.
    pub(super) fn reject<R>(self, request: &Request<R>) -> Option<Response<Bytes>> {
        if (self.is_probe)(request.uri().path()) {
            return None;
        }
        let refusal = Refusal {
            kind: ErrorKind::Overloaded,
            retry_after: None,
            challenge: None,
            detail: "there are as many connections as there may be, and this one is for health probes".to_owned(),
        };
        let mut response = ByContentType.answer(&Protocol::<Bytes>::caller(&ByContentType, request), &refusal);
        if request.version() != Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_probe_is_told_so_in_its_own_protocol() {
        let reserve = Reserve { is_probe: |path| path == "/health" };
        let request = |path: &str, kind: &'static str| {
            let version = if kind.starts_with("application/grpc") { Version::HTTP_2 } else { Version::HTTP_11 };
            Request::post(path).version(version).header(header::CONTENT_TYPE, kind).body(()).unwrap()
        };
        assert!(reserve.reject(&request("/health", "application/json")).is_none());
        let rest = reserve.reject(&request("/execute", "application/json")).unwrap();
        assert_eq!((rest.status().as_u16(), &rest.headers()["connection"]), (503, &HeaderValue::from_static("close")));
        assert!(rest.headers().contains_key(header::RETRY_AFTER));
        let grpc = reserve.reject(&request("/execute", "application/grpc")).unwrap();
        assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &HeaderValue::from_static("14")));
        assert!(!grpc.headers().contains_key(header::CONNECTION));
    }
}
