use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{Limit, RateLimitError, ResponseFuture, Shared};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Limits the rate of calls and rejects those over the quota. See the [module](super).
#[derive(Debug)]
pub struct RateLimiter<S, L = Shared> {
    inner: S,
    limit: Arc<L>,
}

impl<S, L> RateLimiter<S, L> {
    /// Calls `inner` for the requests that `limit` has a token for.
    pub fn new(inner: S, limit: Arc<L>) -> Self {
        Self { inner, limit }
    }
}

inner_service!(RateLimiter::<S, L> { inner });
clone_service!(RateLimiter::<S, L> { inner, limit });

impl<S, L, R> Service<R> for RateLimiter<S, L>
where
    S: Service<R>,
    L: Limit<R>,
{
    type Response = S::Response;
    type Error = RateLimitError<S::Error>;
    type Future = ResponseFuture<S::Future, S::Error>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(RateLimitError::Inner)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        match self.limit.take(&request) {
            Ok(()) => ResponseFuture::call(self.inner.call(request)),
            Err(retry_after) => ResponseFuture::reject(RateLimitError::Limited { retry_after }),
        }
    }
}
