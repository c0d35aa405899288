use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::shared::{FlightsOf, Rerun, Shared, join_or_lead};
use super::{CoalesceError, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::cache_key::CacheKey;
use crate::middleware::inner_service::{clone_service, inner_service};
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
clone_service!(Coalesce<S, P, L> { inner, shared });

impl<S, P, R> Service<R> for Coalesce<S, P, FlightsOf<S, P, R>>
where
    S: Service<R> + Clone,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: CacheKey<R>,
    R: RequestContext,
{
    type Response = S::Response;
    type Error = CoalesceError<S::Error>;
    type Future = ResponseFuture<S, P, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(|error| CoalesceError::Inner(Arc::new(error)))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let deadline = request.deadline();
        let Some(mut caller) = join_or_lead::<S, P, R>(&self.shared, &request) else {
            return ResponseFuture::alone(self.inner.call(request));
        };
        if caller.is_starting() {
            caller.start(|| self.shared.call(&mut self.inner, request));
            return ResponseFuture::shared(caller, None, deadline);
        }
        // A clone has reserved nothing, so what this service has reserved is left to the next call.
        let service = self.inner.clone();
        let rerun = Rerun { service, request: Some(request), shared: Arc::clone(&self.shared) };
        ResponseFuture::shared(caller, Some(Box::new(rerun)), deadline)
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
