use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tower_service::Service;

use super::{ByContentType, Protocol, Rejection, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::CallOrReject;
use crate::middleware::inner_service::{clone_service, inner_service};

/// Converts errors into HTTP or gRPC responses. See the [module](super).
#[derive(Debug)]
pub struct ErrorResponse<S, P = ByContentType> {
    inner: S,
    protocol: P,
    /// Why the inner service failed to become ready: the response to the next call.
    rejection: Option<Rejection>,
}

impl<S, P> ErrorResponse<S, P> {
    /// Converts errors of `inner` by `protocol`.
    pub const fn new(inner: S, protocol: P) -> Self {
        Self { inner, protocol, rejection: None }
    }
}

inner_service!(ErrorResponse::<S, P> { inner });
clone_service!(ErrorResponse::<S, P> { inner, protocol, rejection: None } where P: Clone);

impl<S, P, R, B> Service<Request<R>> for ErrorResponse<S, P>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Error: AnyError,
    P: Protocol<B> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, P, P::Context>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.rejection.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.rejection = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let context = self.protocol.context(&request);
        let inner = match self.rejection.take() {
            None => CallOrReject::call(self.inner.call(request)),
            Some(rejection) => CallOrReject::reject(rejection),
        };
        ResponseFuture::new(inner, self.protocol.clone(), context)
    }
}
