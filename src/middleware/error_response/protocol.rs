use bytes::Bytes;
use http::{Request, Response, header};

use super::{FromBytes, Refusal, grpc, problem};

/// How refusals are written, for responses with the body `B`.
///
/// ```
/// use http::{Request, Response};
/// use tower_kernels::middleware::error_response::{ErrorResponseLayer, Protocol, Refusal};
///
/// /// One line of text, in the way of the nineties.
/// #[derive(Clone, Copy, Debug)]
/// struct Plain;
///
/// impl<B: From<String>> Protocol<B> for Plain {
///     type Caller = ();
///
///     fn caller<R>(&self, _: &Request<R>) {}
///
///     fn answer(&self, (): &(), refusal: &Refusal) -> Response<B> {
///         let mut response = Response::new(format!("{}: {refusal}\n", refusal.kind).into());
///         *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
///         response
///     }
/// }
///
/// let layer = ErrorResponseLayer::with(Plain);
/// ```
pub trait Protocol<B> {
    /// What must be known of a request for its refusal to be written. It is kept beside each call.
    type Caller;

    /// Looks at a request before it is passed on.
    fn caller<R>(&self, request: &Request<R>) -> Self::Caller;

    /// Writes a refusal.
    fn answer(&self, caller: &Self::Caller, refusal: &Refusal) -> Response<B>;
}

/// A problem document, with the status of the [table](crate::error).
///
/// ```json
/// {"title": "Too Many Requests", "status": 429, "code": "rate_limited",
///  "detail": "the rate limit is reached; a call can be made in 500ms"}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

impl<B: FromBytes> Protocol<B> for Http {
    type Caller = ();

    #[inline]
    fn caller<R>(&self, _: &Request<R>) {}

    fn answer(&self, (): &(), refusal: &Refusal) -> Response<B> {
        problem::response(refusal)
    }
}

/// A gRPC status in the headers of a response without a body ("trailers only").
///
/// Where it is known when to retry, `grpc-retry-pushback-ms` says so to clients that retry by themselves, and a
/// `google.rpc.RetryInfo` in `grpc-status-details-bin` to those that read rich errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grpc;

impl<B: Default> Protocol<B> for Grpc {
    type Caller = ();

    #[inline]
    fn caller<R>(&self, _: &Request<R>) {}

    fn answer(&self, (): &(), refusal: &Refusal) -> Response<B> {
        grpc::response(refusal, B::default())
    }
}

/// [`Grpc`] for requests whose content type begins with `application/grpc`, [`Http`] for all others.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByContentType;

/// What [`ByContentType`] takes a caller to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Anything but gRPC.
    Http,
    /// gRPC.
    Grpc,
}

impl<B: FromBytes> Protocol<B> for ByContentType {
    type Caller = Spoken;

    #[inline]
    fn caller<R>(&self, request: &Request<R>) -> Spoken {
        match request.headers().get(header::CONTENT_TYPE) {
            Some(value) if value.as_bytes().starts_with(grpc::CONTENT_TYPE.as_bytes()) => Spoken::Grpc,
            _ => Spoken::Http,
        }
    }

    fn answer(&self, caller: &Spoken, refusal: &Refusal) -> Response<B> {
        match caller {
            Spoken::Http => problem::response(refusal),
            Spoken::Grpc => grpc::response(refusal, B::from_bytes(Bytes::new())),
        }
    }
}
