use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::ResponseFuture;

/// A service with or without a layer. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub enum Optional<A, B> {
    /// With the layer.
    Layered(A),
    /// Without the layer.
    Plain(B),
}

impl<A, B, R> Service<R> for Optional<A, B>
where
    A: Service<R>,
    B: Service<R, Response = A::Response>,
    A::Error: From<B::Error>,
{
    type Response = A::Response;
    type Error = A::Error;
    type Future = ResponseFuture<A::Future, B::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Layered(service) => service.poll_ready(cx),
            Self::Plain(service) => service.poll_ready(cx).map_err(A::Error::from),
        }
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        match self {
            Self::Layered(service) => ResponseFuture::layered(service.call(request)),
            Self::Plain(service) => ResponseFuture::plain(service.call(request)),
        }
    }
}

impl<A: Load, B: Load<Metric = A::Metric>> Load for Optional<A, B> {
    type Metric = A::Metric;

    fn load(&self) -> Self::Metric {
        match self {
            Self::Layered(service) => service.load(),
            Self::Plain(service) => service.load(),
        }
    }
}

#[cfg(feature = "grpc")]
impl<A: tonic::server::NamedService, B> tonic::server::NamedService for Optional<A, B> {
    const NAME: &'static str = A::NAME;
}
