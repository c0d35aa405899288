use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::Again;
use super::policy::Policy;
use crate::error::AnyError;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Makes calls again that failed in passing. See the [module](super).
pub struct Retry<S, P> {
    inner: S,
    source: CloneSource<S>,
    policy: Arc<Policy>,
    again: Arc<P>,
}

impl<S, P> Retry<S, P> {
    pub(super) fn new(inner: S, policy: Arc<Policy>, again: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { source: CloneSource::new(inner.clone()), inner, policy, again }
    }
}

inner_service!(Retry::<S, P> { inner });

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

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        self.policy.budget.deposit();
        if self.policy.settings.attempts <= 1 {
            return ResponseFuture::new(self.inner.call(request), None);
        }
        let again = self.again(&request);
        ResponseFuture::new(self.inner.call(request), again)
    }
}

impl<S, P> Retry<S, P> {
    /// What further attempts of `request` need, where it may have some.
    // Apart, so that nothing is kept for those that may have none.
    #[inline(never)]
    fn again<R: Clone>(&self, request: &R) -> Option<Again<S, R>>
    where
        P: Fn(&R) -> bool,
    {
        (self.again)(request).then(|| Again {
            source: self.source.clone(),
            request: request.clone(),
            attempts: 1,
            policy: Arc::clone(&self.policy),
        })
    }
}

// By hand: a clone needs no `P: Clone`, the policy is shared.
impl<S: Clone, P> Clone for Retry<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            source: self.source.clone(),
            policy: Arc::clone(&self.policy),
            again: Arc::clone(&self.again),
        }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Retry<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}
