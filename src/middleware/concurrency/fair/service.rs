use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower_service::Service;

use super::future::CallFuture;
use super::{FairError, ResponseFuture};
use crate::middleware::concurrency::limit::{FinishCall, Fixed, Limit, StartCall};
use crate::middleware::concurrency::permits::{Permits, Reservation};
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::request::RequestContext;
use crate::request::limits::tenant_key;

/// Limits how many calls of the inner service run at a time, in fair shares of tenants. See the [module](super).
#[derive(Debug)]
pub struct Fair<S, L: Limit = Fixed> {
    inner: S,
    permits: Arc<Permits<L>>,
    max_wait: Duration,
}

impl<S, L: Limit> Fair<S, L> {
    pub(super) fn new(inner: S, permits: Arc<Permits<L>>, max_wait: Duration) -> Self {
        Self { inner, permits, max_wait }
    }
}

inner_service!(Fair::<S, L> { inner } where L: Limit);
clone_service!(Fair::<S, L> { inner, permits, max_wait } where L: Limit);

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
        match self.permits.acquire(tenant_key(&request)) {
            Ok(Reservation::Permit(mut permit)) => {
                permit.start(&request);
                ResponseFuture::call(CallFuture::called(self.inner.call(request), permit))
            }
            Ok(waiting) => {
                // The service that was polled ready is dropped: what it has reserved is free while this call waits.
                self.inner = self.inner.clone();
                ResponseFuture::call(CallFuture::waiting(self.inner.clone(), request, waiting, self.max_wait))
            }
            Err(waiting) => ResponseFuture::reject(FairError::Full { waiting }),
        }
    }
}
