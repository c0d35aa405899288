use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tower_service::Service;

use super::{ByContentType, Protocol, Refusal, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::inner_service::inner_service;

/// Turns refusals into answers. See the [module](super).
#[derive(Debug)]
pub struct Answer<S, P = ByContentType> {
    inner: S,
    protocol: P,
    /// Why the inner service did not become ready: the answer to the next call. Boxed, as services are moved and cloned
    /// far more often than they fail so.
    refusal: Option<Box<Refusal>>,
}

impl<S, P> Answer<S, P> {
    /// Answers what `inner` refuses as `protocol` writes it.
    pub const fn new(inner: S, protocol: P) -> Self {
        Self { inner, protocol, refusal: None }
    }
}

inner_service!(Answer < S, P > { inner });

impl<S, P, R, B> Service<Request<R>> for Answer<S, P>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Error: AnyError,
    P: Protocol<B> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, P, P::Caller>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.refusal.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.refusal = Some(Box::new(Refusal::new(&error)));
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<R>) -> Self::Future {
        let caller = self.protocol.caller(&request);
        match self.refusal.take() {
            None => ResponseFuture::called(self.inner.call(request), self.protocol.clone(), caller),
            Some(refusal) => ResponseFuture::refused(refusal, self.protocol.clone(), caller),
        }
    }
}

// By hand: what the readiness of one service said is no answer of its clone's.
impl<S: Clone, P: Clone> Clone for Answer<S, P> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.protocol.clone())
    }
}
