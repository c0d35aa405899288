use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::{HedgeAttempt, Measurement, Plan};
use super::layer::{Delay, Shared};
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::{RequestContext, ResponseContext};

/// Makes a second attempt at slow calls. See the [module](super).
///
/// Second attempts are made on clones of the service that the layer was applied to.
pub struct Hedge<S, P> {
    inner: S,
    source: CloneSource<S>,
    shared: Arc<Shared>,
    is_idempotent: Arc<P>,
}

impl<S, P> Hedge<S, P> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, is_idempotent: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { source: CloneSource::new(inner.clone()), inner, shared, is_idempotent }
    }
}

inner_service!(Hedge::<S, P> { inner });
clone_service!(Hedge<S, P> { inner, source, shared, is_idempotent });

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
        self.shared.budget.deposit();
        let start = clock::now();
        let (delay, measurement) = match &self.shared.delay {
            Delay::Fixed(delay) => (Some(*delay), None),
            Delay::Quantile(latencies) => {
                let (operation, quantile) = latencies.find(request.operation());
                (quantile, Some(Measurement { shared: Arc::clone(&self.shared), operation, start }))
            }
        };
        let due = delay.and_then(|delay| start.checked_add(delay));
        let due = due.filter(|due| request.deadline().is_none_or(|deadline| *due < deadline));
        let hedge = match due {
            Some(due) if (self.is_idempotent)(&request) => {
                let (source, shared) = (self.source.clone(), Arc::clone(&self.shared));
                HedgeAttempt::new(Plan { source, request: request.clone(), shared }, due)
            }
            _ => HedgeAttempt::None,
        };
        ResponseFuture::new(self.inner.call(request), hedge, measurement)
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Hedge<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("inner", &self.inner).field("shared", &self.shared).finish_non_exhaustive()
    }
}
