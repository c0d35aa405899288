use std::task::{Context, Poll};

use tower_service::Service;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::{ResponseFuture, record};
use crate::error::AnyError;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Makes a span for each call. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct Tracing<S> {
    inner: S,
    level: Level,
    kind: &'static str,
}

impl<S> Tracing<S> {
    pub(super) const fn new(inner: S, level: Level, kind: &'static str) -> Self {
        Self { inner, level, kind }
    }
}

inner_service!(Tracing<S> { inner });

impl<S, R> Service<R> for Tracing<S>
where
    S: Service<R>,
    R: RequestContext,
    S::Response: ResponseContext,
    S::Error: AnyError,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        // One comparison answers for every call where nobody listens, before any of the call sites is looked at. Below
        // the level of this layer there can be the span of a server.
        if LevelFilter::current() == LevelFilter::OFF {
            return ResponseFuture::unobserved(self.inner.call(request));
        }
        self.call_observed(request)
    }
}

impl<S> Tracing<S> {
    // Apart, so that the call that nobody observes is not made to keep room for it.
    #[inline(never)]
    fn call_observed<R>(&mut self, request: R) -> ResponseFuture<S::Future>
    where
        S: Service<R>,
        R: RequestContext,
    {
        let span = record::span(self.level, self.kind, &request);
        if span.is_disabled() {
            return ResponseFuture::unobserved(self.inner.call(request));
        }
        let future = span.in_scope(|| self.inner.call(request));
        ResponseFuture::observed(future, span)
    }
}
