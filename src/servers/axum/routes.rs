use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::error::AnyError;
use crate::servers::http::{ResponseBody, ResponseFuture, Rest};
use crate::service::{KernelRequest, KernelResponse};

/// The routes of a [`KernelRouter`](super::KernelRouter) as one service: what a layer of
/// [`KernelRouter::into_service`](super::KernelRouter::into_service) is put around.
pub struct KernelRoutes<S> {
    rest: Arc<Rest<S>>,
}

impl<S> KernelRoutes<S> {
    pub(super) fn new(rest: Rest<S>) -> Self {
        Self { rest: Arc::new(rest) }
    }
}

impl<S, B> Service<Request<B>> for KernelRoutes<S>
where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send> + Clone + Send + Sync + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    /// Always ready: a request waits for the readiness of the kernels' service once its body has been read.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture::new(Rest::clone(&self.rest).respond(request))
    }
}

impl<S> Clone for KernelRoutes<S> {
    fn clone(&self) -> Self {
        Self { rest: Arc::clone(&self.rest) }
    }
}

impl<S> fmt::Debug for KernelRoutes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelRoutes").field("state", &self.rest.state).finish_non_exhaustive()
    }
}
