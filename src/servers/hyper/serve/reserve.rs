//! Reserved connections above the maximum, for health probes.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};

use crate::error::ErrorKind;
use crate::middleware::error_response::{ByContentType, Protocol, Rejection};
use crate::request::request_id::RequestId;
use crate::servers::http::ErrorForm;

/// Accepts only probes on a reserved connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    pub(super) is_probe: fn(&str) -> bool,
}

impl Reserve {
    /// Rejects a request that is no probe with 503 or UNAVAILABLE; HTTP/1.1 then closes the connection.
    pub(super) fn reject<R>(self, request: &Request<R>) -> Option<Response<Bytes>> {
        if (self.is_probe)(request.uri().path()) || is_preflight(request) {
            return None;
        }
        let detail = "the connection limit is reached, and this connection is reserved for health probes";
        Some(rejection(request, ErrorKind::Overloaded, detail))
    }
}

/// Rejects a request that arrived after the GOAWAY of a stopping server.
pub(super) fn reject_while_stopping<R>(request: &Request<R>) -> Response<Bytes> {
    rejection(request, ErrorKind::Unavailable, "the server is shutting down")
}

/// Whether this is a CORS preflight request. If it were rejected, a script could not read the rejection of the request
/// that follows.
fn is_preflight<R>(request: &Request<R>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn rejection<R>(request: &Request<R>, kind: ErrorKind, detail: &str) -> Response<Bytes> {
    let rejection = Rejection { kind, retry_after: None, challenge: None, detail: detail.to_owned() };
    let mut response = ByContentType.respond(&Protocol::<Bytes>::context(&ByContentType, request), &rejection);
    // What serves the requests is not known here: the path alone tells the protocol.
    let error_form = ErrorForm::of_path(request.uri().path(), true);
    error_form.complete(&mut response, &RequestId::from_headers(request.headers()));
    response.extensions_mut().insert(MadeByServer);
    if request.version() != Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Response extension that marks responses made by the server itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct MadeByServer;

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: HeaderValue = HeaderValue::from_static("application/json");

    #[test]
    fn other_requests_are_rejected_in_their_own_protocol() {
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
        let inference = reserve.reject(&request("/v2/models/a/infer", "application/json")).unwrap();
        assert_eq!((inference.status().as_u16(), &inference.headers()["content-type"]), (503, &JSON));
        let error: serde_json::Value = serde_json::from_slice(inference.body()).unwrap();
        assert_eq!(error, serde_json::json!({ "error": document["detail"] }));
        assert!(
            inference.headers().contains_key("x-request-id") && inference.headers().contains_key(header::RETRY_AFTER)
        );
        let grpc = reserve.reject(&request("/execute", "application/grpc")).unwrap();
        assert_eq!((grpc.status().as_u16(), &grpc.headers()["grpc-status"]), (200, &HeaderValue::from_static("14")));
        assert!(!grpc.headers().contains_key(header::CONNECTION));
        let preflight = Request::options("/execute").header("access-control-request-method", "POST").body(()).unwrap();
        assert!(reserve.reject(&preflight).is_none());
    }
}
