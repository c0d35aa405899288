use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::Call;
use super::handle::State;
use crate::error::AnyError;
use crate::middleware::clock;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Counts and times the calls of a service. See the [module](super).
#[derive(Clone, Debug)]
pub struct Metrics<S> {
    inner: S,
    state: Arc<State>,
}

impl<S> Metrics<S> {
    pub(super) fn new(inner: S, state: Arc<State>) -> Self {
        Self { inner, state }
    }
}

inner_service!(Metrics::<S> { inner });

impl<S, R> Service<R> for Metrics<S>
where
    S: Service<R>,
    R: RequestContext,
    S::Response: ResponseContext,
    S::Error: AnyError,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let cached = clock::cache_now();
        // Before the inner call, so that a panic in it is counted.
        let call = Call::begin(&self.state, cached.now, request.operation(), request.payload_bytes());
        ResponseFuture::new(self.inner.call(request), call)
    }
}
