use bytes::Bytes;
use http::{Request, Response, header};

use super::{FromBytes, Rejection, grpc};
use crate::error::problem::{ProblemDocument, status_and_code};

/// Writes rejections as responses with the body `B`.
///
/// ```
/// use http::{Request, Response};
/// use tower_kernels::middleware::error_response::{ErrorResponseLayer, Protocol, Rejection};
///
/// /// One line of text.
/// #[derive(Clone, Copy, Debug)]
/// struct Plain;
///
/// impl<B: From<String>> Protocol<B> for Plain {
///     type Context = ();
///
///     fn context<R>(&self, _: &Request<R>) {}
///
///     fn respond(&self, (): &(), rejection: &Rejection) -> Response<B> {
///         let mut response = Response::new(format!("{}: {}\n", rejection.kind, rejection.detail).into());
///         *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
///         response
///     }
/// }
///
/// let layer = ErrorResponseLayer::with(Plain);
/// ```
pub trait Protocol<B> {
    /// What writing a rejection needs of the request. It is stored in the response future.
    type Context;

    /// Reads the context from a request before the inner call.
    fn context<R>(&self, request: &Request<R>) -> Self::Context;

    /// Writes a rejection.
    fn respond(&self, context: &Self::Context, rejection: &Rejection) -> Response<B>;
}

/// A problem document, with the status of the [table](crate::error).
///
/// ```json
/// {"title": "Too Many Requests", "status": 429, "code": "rate_limited",
///  "detail": "the rate limit is reached; retry in 500ms"}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

impl<B: FromBytes> Protocol<B> for Http {
    type Context = ();

    fn context<R>(&self, _: &Request<R>) {}

    fn respond(&self, (): &(), rejection: &Rejection) -> Response<B> {
        let document = ProblemDocument::new(status_and_code(rejection.kind), rejection.detail.as_str());
        document.into_response(rejection.retry_after, rejection.challenge.as_ref()).map(B::from_bytes)
    }
}

/// A gRPC status in the headers of a response without a body ("trailers only").
///
/// A retry-after time is written as `grpc-retry-pushback-ms`, for clients that retry by themselves, and as
/// `google.rpc.RetryInfo` in `grpc-status-details-bin`, for those that read rich errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grpc;

impl<B: Default> Protocol<B> for Grpc {
    type Context = ();

    fn context<R>(&self, _: &Request<R>) {}

    fn respond(&self, (): &(), rejection: &Rejection) -> Response<B> {
        grpc::response(rejection, B::default())
    }
}

/// [`Grpc`] for requests whose content type begins with `application/grpc`, [`Http`] for all others.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByContentType;

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestProtocol {
    /// Anything but gRPC.
    Http,
    /// gRPC.
    Grpc,
}

impl<B: FromBytes> Protocol<B> for ByContentType {
    type Context = RequestProtocol;

    fn context<R>(&self, request: &Request<R>) -> RequestProtocol {
        match request.headers().get(header::CONTENT_TYPE) {
            Some(value) if value.as_bytes().starts_with(grpc::CONTENT_TYPE.as_bytes()) => RequestProtocol::Grpc,
            _ => RequestProtocol::Http,
        }
    }

    fn respond(&self, context: &RequestProtocol, rejection: &Rejection) -> Response<B> {
        match context {
            RequestProtocol::Http => Http.respond(&(), rejection),
            RequestProtocol::Grpc => grpc::response(rejection, B::from_bytes(Bytes::new())),
        }
    }
}
