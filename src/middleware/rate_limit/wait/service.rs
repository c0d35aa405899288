use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::super::{Limit, RateLimitError};
use super::{Line, WaitFuture};
use crate::middleware::clock;

/// Lets so many calls a period through and has the others wait. See [`RateLimiterLayer::wait`].
///
/// [`RateLimiterLayer::wait`]: super::super::RateLimiterLayer::wait
#[derive(Debug)]
pub struct Wait<S, L> {
    inner: S,
    line: Arc<Line<L>>,
}

impl<S, L> Wait<S, L> {
    pub(super) fn new(inner: S, line: Arc<Line<L>>) -> Self {
        Self { inner, line }
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
        let wait = match self.line.limit.take(&request) {
            Ok(()) => return WaitFuture::called(self.inner.call(request)),
            Err(wait) => wait,
        };
        let Some(place) = (wait <= self.line.max_wait).then(|| self.line.enter()).flatten() else {
            return WaitFuture::limited(wait);
        };
        // The service that was ready holds a place to run; it is let go, as this call will not run for a while.
        let unready = self.inner.clone();
        drop(mem::replace(&mut self.inner, unready.clone()));
        WaitFuture::waiting(unready, request, place, clock::now(), wait)
    }
}

// By hand: a clone needs no `L: Clone`, the quota is shared.
impl<S: Clone, L> Clone for Wait<S, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), line: Arc::clone(&self.line) }
    }
}

impl<S: Load, L> Load for Wait<S, L> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}
