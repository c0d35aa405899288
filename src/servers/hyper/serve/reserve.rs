//! Connections past the most that there may be, kept for health probes.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};

use crate::error::ErrorKind;
use crate::middleware::error_response::{ByContentType, Protocol, Rejection};
use crate::servers::http::RequestId;

/// Which requests may come over a connection that is past the most that there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    pub(super) is_probe: fn(&str) -> bool,
}

impl Reserve {
    /// The response to a request that is no probe: 503 or UNAVAILABLE, after which HTTP/1.1 closes the connection.
    pub(super) fn reject<R>(self, request: &Request<R>) -> Option<Response<Bytes>> {
        if (self.is_probe)(request.uri().path()) || is_preflight(request) {
            return None;
        }
        let detail = "there are as many connections as there may be, and this one is for health probes";
        Some(rejection(request, ErrorKind::Overloaded, detail))
    }
}

/// The response to a request that came although its client was told that the server stops.
pub(super) fn reject_while_stopping<R>(request: &Request<R>) -> Response<Bytes> {
    rejection(request, ErrorKind::Unavailable, "the server is shutting down")
}

/// What a browser asks before it sends a request of another origin: without an answer the script would not see the
/// rejection of that one.
fn is_preflight<R>(request: &Request<R>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn rejection<R>(request: &Request<R>, kind: ErrorKind, detail: &str) -> Response<Bytes> {
    let rejection = Rejection { kind, retry_after: None, challenge: None, detail: detail.to_owned() };
    let mut response = ByContentType.respond(&Protocol::<Bytes>::context(&ByContentType, request), &rejection);
    RequestId::of(request.headers()).add_to(&mut response);
    response.extensions_mut().insert(OfServer);
    if request.version() != Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An extension of responses that no service has made.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfServer;

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
        let document: serde_json::Value = serde_json::from_slice(rest.body()).unwrap();
        assert_eq!(document["request_id"], *rest.headers()["x-request-id"].to_str().unwrap());
        let grpc = reserve.reject(&request("/execute", "application/grpc")).unwrap();
        assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &HeaderValue::from_static("14")));
        assert!(!grpc.headers().contains_key(header::CONNECTION));
        let preflight = Request::options("/execute").header("access-control-request-method", "POST").body(()).unwrap();
        assert!(reserve.reject(&preflight).is_none());
    }
}
