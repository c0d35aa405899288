use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::ResponseFuture;
use super::future::Again;
use super::policy::Policy;
use crate::error::AnyError;
use crate::middleware::spare::Spare;
use crate::request::{RequestContext, ResponseContext};

/// Makes calls again that failed in passing. See the [module](super).
pub struct Retry<S, P> {
    inner: S,
    spare: Spare<S>,
    policy: Arc<Policy>,
    again: Arc<P>,
}

impl<S, P> Retry<S, P> {
    pub(super) fn new(inner: S, policy: Arc<Policy>, again: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { spare: Spare::new(inner.clone()), inner, policy, again }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service. Further attempts are made on clones of the service as it was given to the layer.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

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
            spare: self.spare.clone(),
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
            spare: self.spare.clone(),
            policy: Arc::clone(&self.policy),
            again: Arc::clone(&self.again),
        }
    }
}

impl<S: Load, P> Load for Retry<S, P> {
    type Metric = S::Metric;

    fn load(&self) -> Self::Metric {
        self.inner.load()
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Retry<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}
