use std::task::{Context, Poll};
use std::time::Duration;

use tower_service::Service;

use super::{ResponseFuture, TimeoutError};
use crate::middleware::clock;
use crate::middleware::inner_service::inner_service;
use crate::request::RequestContext;

/// Applies a timeout to calls. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct Timeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Timeout<S> {
    /// Applies `timeout` to calls of `inner`, or the request's own deadline where that is earlier.
    pub const fn new(inner: S, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

inner_service!(Timeout::<S> { inner });

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

    #[inline]
    fn call(&mut self, mut request: R) -> Self::Future {
        let now = clock::now();
        let requested = request.deadline();
        if requested.is_some_and(|deadline| deadline <= now) {
            return ResponseFuture::late();
        }
        // A timeout too long for an `Instant` is no timeout.
        let deadline = match (requested, now.checked_add(self.timeout)) {
            (Some(requested), Some(ours)) if ours >= requested => Some(requested),
            (_, Some(ours)) => {
                request.set_deadline(ours);
                Some(ours)
            }
            (requested, None) => requested,
        };
        ResponseFuture::called(self.inner.call(request), deadline)
    }
}
