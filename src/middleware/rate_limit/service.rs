use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::{Limit, RateLimitError, ResponseFuture, Shared};

/// Lets so many calls a period through and refuses the others. See the [module](super).
#[derive(Debug)]
pub struct RateLimiter<S, L = Shared> {
    inner: S,
    limit: Arc<L>,
}

impl<S, L> RateLimiter<S, L> {
    /// Lets calls of `inner` through for which `limit` has a token.
    pub fn new(inner: S, limit: Arc<L>) -> Self {
        Self { inner, limit }
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

impl<S, L, R> Service<R> for RateLimiter<S, L>
where
    S: Service<R>,
    L: Limit<R>,
{
    type Response = S::Response;
    type Error = RateLimitError<S::Error>;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(RateLimitError::Inner)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        if let Err(retry_after) = self.limit.take(&request) {
            return ResponseFuture::limited(retry_after);
        }
        ResponseFuture::called(self.inner.call(request))
    }
}

// By hand: a clone needs no `L: Clone`, the quota is shared.
impl<S: Clone, L> Clone for RateLimiter<S, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), limit: Arc::clone(&self.limit) }
    }
}

impl<S: Load, L> Load for RateLimiter<S, L> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}
