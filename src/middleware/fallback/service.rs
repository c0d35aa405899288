use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::Plan;
use super::policy::Shared;
use super::{FallbackError, FallbackPolicy, ResponseFuture};
use crate::error::{AnyError, ErrorKinds};
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::RequestContext;

/// Calls a fallback service when the primary one fails. See the [module](super).
pub struct Fallback<S: Service<R>, F, R, C = ErrorKinds> {
    primary: S,
    shared: Arc<Shared<F, R, C>>,
    /// The error of the primary service's readiness, if the next call goes to the fallback for it.
    unready: Option<S::Error>,
}

impl<S: Service<R>, F, R, C> Fallback<S, F, R, C> {
    pub(super) fn new(primary: S, shared: Arc<Shared<F, R, C>>) -> Self {
        Self { primary, shared, unready: None }
    }
}

inner_service!(Fallback::<S, F, R, C> { primary } where S: Service<R>);
clone_service!(Fallback<S, F, R, C> { primary, shared, unready: None } where S: Service<R>);
derive_debug!(Fallback::<S, F, R, C> { primary, shared } where S: Service<R> + fmt::Debug);

impl<S, F, R, C> Service<R> for Fallback<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: FallbackPolicy<S::Error>,
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
            Poll::Ready(Err(error)) if self.shared.errors.accepts_error(&error) => {
                self.unready = Some(error);
                Poll::Ready(Ok(()))
            }
            other => other.map_err(FallbackError::Primary),
        }
    }

    fn call(&mut self, request: R) -> Self::Future {
        let plan = self
            .shared
            .accepts_request(&request)
            .then(|| Plan { request: request.clone(), shared: Arc::clone(&self.shared) });
        match self.unready.take() {
            None => ResponseFuture::call(self.primary.call(request), plan),
            Some(error) => ResponseFuture::unready(error, plan),
        }
    }
}
