use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::{Protocol, Rejection};
use crate::error::AnyError;
use crate::middleware::CallOrReject;

pin_project! {
    /// The response future of an [`ErrorResponse`](super::ErrorResponse).
    #[derive(Debug)]
    pub struct ResponseFuture<F, P, C> {
        // Rejected if the inner service failed to become ready.
        #[pin]
        inner: CallOrReject<F, Rejection>,
        protocol: P,
        context: C,
    }
}

impl<F, P, C> ResponseFuture<F, P, C> {
    pub(super) fn new(inner: CallOrReject<F, Rejection>, protocol: P, context: C) -> Self {
        Self { inner, protocol, context }
    }
}

impl<F, P, C, B, E> Future for ResponseFuture<F, P, C>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: AnyError,
    P: Protocol<B, Context = C>,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(Ok(result.unwrap_or_else(|rejection| this.protocol.respond(this.context, &rejection))))
    }
}
