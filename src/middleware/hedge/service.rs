use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::{HedgeAttempt, Measurement};
use super::layer::{Delay, Policy};
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::{RequestContext, ResponseContext};

/// Makes a second attempt at slow calls. See the [module](super).
///
/// Second attempts are made on clones of the service that the layer was applied to.
pub struct Hedge<S, P> {
    inner: S,
    source: CloneSource<S>,
    policy: Arc<Policy>,
    is_idempotent: Arc<P>,
}

impl<S, P> Hedge<S, P> {
    pub(super) fn new(inner: S, policy: Arc<Policy>, is_idempotent: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { source: CloneSource::new(inner.clone()), inner, policy, is_idempotent }
    }
}

inner_service!(Hedge::<S, P> { inner });
clone_service!(Hedge<S, P> { inner, source, policy, is_idempotent });
derive_debug!(Hedge::<S, P> { inner, policy } where S: fmt::Debug);

impl<S, P, R> Service<R> for Hedge<S, P>
where
    S: Service<R> + Clone,
    P: Fn(&R) -> bool,
    R: RequestContext + Clone,
    S::Response: ResponseContext,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.policy.budget.deposit();
        let start = clock::now();
        let (delay, measurement) = match &self.policy.delay {
            Delay::Fixed(delay) => (Some(*delay), None),
            Delay::Quantile(latencies) => {
                let (operation, quantile) = latencies.find(request.operation());
                (quantile, Some(Measurement { latencies: Arc::clone(latencies), operation, start }))
            }
        };
        let due = delay
            .and_then(|delay| start.checked_add(delay))
            .filter(|due| request.deadline().is_none_or(|deadline| *due < deadline))
            .filter(|_| (self.is_idempotent)(&request));
        let hedge = match due {
            Some(due) => HedgeAttempt::planned(self.source.clone(), request.clone(), due),
            None => HedgeAttempt::None,
        };
        ResponseFuture::new(self.inner.call(request), hedge, measurement, Arc::clone(&self.policy))
    }
}
