use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower_service::Service;

use super::{FairError, ResponseFuture};
use crate::middleware::concurrency::limit::{FinishCall, Fixed, StartCall};
use crate::middleware::concurrency::shared::{Acquired, Shared};
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::RequestContext;
use crate::request::limits::tenant_key;

/// Limits how many calls of the inner service run at a time, in fair shares of tenants. See the [module](super).
#[derive(Debug)]
pub struct Fair<S, L = Fixed> {
    inner: S,
    shared: Arc<Shared<L>>,
    max_wait: Duration,
}

impl<S, L> Fair<S, L> {
    pub(super) fn new(inner: S, shared: Arc<Shared<L>>, max_wait: Duration) -> Self {
        Self { inner, shared, max_wait }
    }
}

inner_service!(Fair < S, L > { inner });
clone_service!(Fair<S, L> { inner, shared, max_wait });

impl<S, L, R> Service<R> for Fair<S, L>
where
    S: Service<R> + Clone,
    R: RequestContext,
    L: StartCall<R> + FinishCall<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = FairError<S::Error>;
    type Future = ResponseFuture<S, R, L>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(FairError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.shared.acquire(tenant_key(&request)) {
            Acquired::Permit(permit) => {
                let call = permit.start(&request);
                ResponseFuture::called(self.inner.call(request), call)
            }
            Acquired::Waiting(waiter) => {
                // The service that was polled ready is dropped: what it has reserved is free while this call waits.
                self.inner = self.inner.clone();
                ResponseFuture::waiting(self.inner.clone(), request, waiter, self.max_wait)
            }
            Acquired::Full { waiting } => ResponseFuture::rejected(waiting),
        }
    }
}
