use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::join;
use super::{CoalesceError, Flights, ResponseFuture};
use crate::error::AnyError;
use crate::middleware::cache_key::CacheKey;
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::RequestContext;

/// Lets equal requests in flight share one run. See the [module](super).
pub struct Coalesce<S, P, L> {
    inner: S,
    cache_key: Arc<P>,
    flights: Arc<L>,
}

impl<S, P, L> Coalesce<S, P, L> {
    pub(super) fn new(inner: S, cache_key: Arc<P>, flights: Arc<L>) -> Self {
        Self { inner, cache_key, flights }
    }
}

inner_service!(Coalesce::<S, P, L> { inner });
clone_service!(Coalesce<S, P, L> { inner, cache_key, flights });
derive_debug!(Coalesce::<S, P, L> { inner, flights } where S: Debug, L: Debug);

impl<S, P, R> Service<R> for Coalesce<S, P, Flights<P::OwnedKey, S::Response, S::Error>>
where
    S: Service<R> + Clone + Send + 'static,
    S::Response: Clone + Send + 'static,
    S::Error: AnyError + Send + Sync,
    S::Future: Send + 'static,
    P: CacheKey<R> + Send + Sync + 'static,
    R: RequestContext + Send + 'static,
{
    type Response = S::Response;
    type Error = CoalesceError<S::Error>;
    type Future = ResponseFuture<S::Future, P::OwnedKey, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(CoalesceError::from)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let Some(mut caller) = self.flights.join_or_lead(&*self.cache_key, &request) else {
            return ResponseFuture::alone(self.inner.call(request));
        };
        if caller.is_leader() {
            let deadline = request.deadline();
            self.flights.extend_deadline(&mut request);
            caller.start(|| self.inner.call(request));
            return ResponseFuture::leading(caller, deadline);
        }
        // A clone has reserved nothing, so what this service has reserved is left to the next call.
        let service = self.inner.clone();
        ResponseFuture::joined(join(caller, service, request, Arc::clone(&self.cache_key), Arc::clone(&self.flights)))
    }
}
