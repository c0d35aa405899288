use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::ResponseFuture;
use super::future::Call;
use super::handle::State;
use crate::error::AnyError;
use crate::middleware::beside::call_beside;
use crate::middleware::clock;
use crate::request::{RequestContext, ResponseContext};

/// Counts and measures calls. See the [module](super).
#[derive(Clone, Debug)]
pub struct Metrics<S> {
    inner: S,
    state: Arc<State>,
}

impl<S> Metrics<S> {
    pub(super) fn new(inner: S, state: Arc<State>) -> Self {
        Self { inner, state }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

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

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        let reading = clock::hold();
        // Before the inner call, so that one that panics there is counted as well.
        let mut call = Call::begin(&self.state, reading.now, request.operation(), request.payload_bytes());
        call_beside(&mut self.inner, request, &mut call, |inner, call| ResponseFuture::new(inner, call.take()))
    }
}

impl<S: Load> Load for Metrics<S> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}
