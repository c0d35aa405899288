use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::Retries;
use super::policy::Policy;
use crate::error::AnyError;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::{RequestContext, ResponseContext};

/// Retries calls that failed transiently. See the [module](super).
///
/// Further attempts are made on clones of the service that the layer was applied to.
pub struct Retry<S, P> {
    inner: S,
    source: CloneSource<S>,
    policy: Arc<Policy>,
    is_idempotent: Arc<P>,
}

impl<S, P> Retry<S, P> {
    pub(super) fn new(inner: S, policy: Arc<Policy>, is_idempotent: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { source: CloneSource::new(inner.clone()), inner, policy, is_idempotent }
    }
}

inner_service!(Retry::<S, P> { inner });
clone_service!(Retry<S, P> { inner, source, policy, is_idempotent });
derive_debug!(Retry::<S, P> { inner, policy } where S: fmt::Debug);

impl<S, P, R> Service<R> for Retry<S, P>
where
    S: Service<R> + Clone,
    P: Fn(&R) -> bool,
    R: RequestContext + Clone,
    S::Response: ResponseContext,
    S::Error: AnyError,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.policy.budget.deposit();
        let may_retry = self.policy.max_attempts > 1 && (self.is_idempotent)(&request);
        let retries = may_retry.then(|| {
            let (source, policy) = (self.source.clone(), Arc::clone(&self.policy));
            Box::new(Retries::new(source, request.clone(), policy))
        });
        ResponseFuture::new(self.inner.call(request), retries)
    }
}
