use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::again::{Again, FlightsOf, Shared, board};
use super::{CoalesceError, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::cache_key::Repeats;
use crate::middleware::inner_service::inner_service;
use crate::request::RequestContext;

/// Lets equal requests in flight share one run. See the [module](super).
pub struct Coalesce<S, P, L> {
    inner: S,
    shared: Arc<Shared<P, L>>,
}

impl<S, P, L> Coalesce<S, P, L> {
    pub(super) fn new(inner: S, shared: Arc<Shared<P, L>>) -> Self {
        Self { inner, shared }
    }
}

inner_service!(Coalesce::<S, P, L> { inner });

impl<S, P, R> Service<R> for Coalesce<S, P, FlightsOf<S, P, R>>
where
    S: Service<R> + Clone,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: Repeats<R>,
    R: RequestContext,
{
    type Response = S::Response;
    type Error = CoalesceError<S::Error>;
    type Future = ResponseFuture<S, P, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|error| CoalesceError::Inner(Arc::new(error)))
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        let deadline = request.deadline();
        let Some(mut caller) = board::<S, P, R>(&self.shared, &request) else {
            return ResponseFuture::alone(self.inner.call(request));
        };
        if caller.is_to_begin() {
            caller.begin(|| self.shared.call(&mut self.inner, request));
            return ResponseFuture::leads(caller, deadline);
        }
        // A clone, which has nothing reserved: what is ready here stays so for the next call.
        let service = self.inner.clone();
        let again = Again { service, request: Some(request), shared: Arc::clone(&self.shared) };
        ResponseFuture::joins(caller, again, deadline)
    }
}

// By hand: the runs are shared.
impl<S: Clone, P, L> Clone for Coalesce<S, P, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, P, L: fmt::Debug> fmt::Debug for Coalesce<S, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("inner", &self.inner)
            .field("flights", &self.shared.flights)
            .finish_non_exhaustive()
    }
}
