use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::Plan;
use super::layer::Shared;
use super::{FallbackError, FallbackPolicy, ResponseFuture};
use crate::error::{AnyError, ErrorKinds};
use crate::middleware::clone_source::CloneSource;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::RequestContext;

/// Calls a fallback service when the primary one fails. See the [module](super).
pub struct Fallback<S: Service<R>, F, R, C = ErrorKinds> {
    primary: S,
    fallback: CloneSource<F>,
    shared: Arc<Shared<C>>,
    /// The error of the primary service's readiness, if the next call goes to the fallback for it.
    unready: Option<S::Error>,
}

impl<S: Service<R>, F, R, C> Fallback<S, F, R, C> {
    pub(super) fn new(primary: S, fallback: CloneSource<F>, shared: Arc<Shared<C>>) -> Self {
        Self { primary, fallback, shared, unready: None }
    }
}

inner_service!(Fallback::<S, F, R, C> { primary } where S: Service<R>);
clone_service!(Fallback<S, F, R, C> { primary, fallback, shared, unready: None } where S: Service<R>);

impl<S, F, R, C> Service<R> for Fallback<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: FallbackPolicy<R, S::Error>,
    R: RequestContext + Clone,
{
    type Response = S::Response;
    type Error = FallbackError<S::Error, F::Error>;
    type Future = ResponseFuture<S, F, R, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.unready.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.primary.poll_ready(cx) {
            Poll::Ready(Err(error)) if self.shared.policy.accepts_error(&error) => {
                self.unready = Some(error);
                Poll::Ready(Ok(()))
            }
            other => other.map_err(FallbackError::Primary),
        }
    }

    fn call(&mut self, request: R) -> Self::Future {
        let plan = self.shared.policy.accepts_request(&request).then(|| Plan {
            fallback: self.fallback.clone(),
            request: request.clone(),
            shared: Arc::clone(&self.shared),
        });
        match self.unready.take() {
            None => ResponseFuture::call(self.primary.call(request), plan),
            Some(error) => ResponseFuture::unready(error, plan),
        }
    }
}

impl<S: Service<R> + fmt::Debug, F, R, C> fmt::Debug for Fallback<S, F, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("primary", &self.primary)
            .field("counts", &self.shared.counts)
            .finish_non_exhaustive()
    }
}
