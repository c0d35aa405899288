use std::task::{Context, Poll};

use tower_service::Service;
use tracing::Span;
use tracing::level_filters::LevelFilter;

use super::{ResponseFuture, TracingLayer, record};
use crate::error::AnyError;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Creates a span for each call. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct Tracing<S> {
    inner: S,
    settings: TracingLayer,
}

impl<S> Tracing<S> {
    pub(super) const fn new(inner: S, settings: TracingLayer) -> Self {
        Self { inner, settings }
    }
}

inner_service!(Tracing::<S> { inner });

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

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        // Without a subscriber this comparison is all that a call costs. The level of this layer is not compared: the span
        // can be that of a server, whose level is another.
        let span = match LevelFilter::current() {
            LevelFilter::OFF => None,
            _ => Some(record::span(self.settings, &request)).filter(|span| !span.is_disabled()),
        };
        let entered = span.as_ref().map(Span::enter);
        let future = self.inner.call(request);
        drop(entered);
        ResponseFuture::new(future, span)
    }
}
