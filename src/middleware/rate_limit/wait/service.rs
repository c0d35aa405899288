use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::super::{Limit, RateLimitError};
use super::future::CallFuture;
use super::{Queue, WaitFuture};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Limits the rate of calls and delays those over the quota. See [`RateLimiterLayer::wait`].
///
/// [`RateLimiterLayer::wait`]: super::super::RateLimiterLayer::wait
#[derive(Debug)]
pub struct Wait<S, L> {
    inner: S,
    queue: Arc<Queue<L>>,
}

impl<S, L> Wait<S, L> {
    pub(super) fn new(inner: S, queue: Arc<Queue<L>>) -> Self {
        Self { inner, queue }
    }
}

inner_service!(Wait::<S, L> { inner });
clone_service!(Wait::<S, L> { inner, queue });

impl<S, L, R> Service<R> for Wait<S, L>
where
    S: Service<R> + Clone,
    L: Limit<R>,
{
    type Response = S::Response;
    type Error = RateLimitError<S::Error>;
    type Future = WaitFuture<S, R, L>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(RateLimitError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let wait = match self.queue.limit.take(&request) {
            Ok(()) => return WaitFuture::call(CallFuture::called(self.inner.call(request))),
            Err(wait) => wait,
        };
        let permit = Arc::clone(&self.queue.permits).try_acquire_owned();
        let (Ok(permit), true) = (permit, wait <= self.queue.max_wait) else {
            return WaitFuture::reject(RateLimitError::Limited { retry_after: wait });
        };
        // The service that was ready holds a permit further in, which this call does not use for a while: release it.
        self.inner = self.inner.clone();
        WaitFuture::call(CallFuture::waiting(self.inner.clone(), request, Arc::clone(&self.queue), permit, wait))
    }
}
