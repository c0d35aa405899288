use std::task::{Context, Poll};
use std::time::Duration;

use tower::load::Load;
use tower_service::Service;

use super::{ResponseFuture, TimeoutError};
use crate::middleware::clock;
use crate::request::RequestContext;

/// Gives each call a deadline. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Timeout<S> {
    /// Allows each call of `inner` `timeout`, or less where the request's own deadline is nearer.
    pub const fn new(inner: S, timeout: Duration) -> Self {
        Self { inner, timeout }
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

impl<S, R> Service<R> for Timeout<S>
where
    S: Service<R>,
    R: RequestContext,
{
    type Response = S::Response;
    type Error = TimeoutError<S::Error>;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(TimeoutError::Inner)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, mut request: R) -> Self::Future {
        let now = clock::now();
        let theirs = request.deadline();
        let late = theirs.is_some_and(|deadline| deadline <= now);
        // A timeout that no instant can express is none.
        let deadline = match (theirs, now.checked_add(self.timeout)) {
            (Some(theirs), Some(ours)) if ours >= theirs => Some(theirs),
            (_, Some(ours)) => {
                request.set_deadline(ours);
                Some(ours)
            }
            (theirs, None) => theirs,
        };
        if late {
            return ResponseFuture::new(None, deadline);
        }
        ResponseFuture::new(Some(self.inner.call(request)), deadline)
    }
}

impl<S: Load> Load for Timeout<S> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}
