use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::limit::{FinishCall, Fixed, Limit, StartCall};
use super::permits::{Permits, Reservation};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Limits how many calls of the inner service run at a time. See the [module](super).
#[derive(Debug)]
pub struct ConcurrencyLimit<S, L: Limit = Fixed> {
    inner: S,
    permits: Arc<Permits<L>>,
    /// For the next call, by `poll_ready`.
    reservation: Option<Reservation<L>>,
}

impl<S, L: Limit> ConcurrencyLimit<S, L> {
    pub(super) fn new(inner: S, permits: Arc<Permits<L>>) -> Self {
        Self { inner, permits, reservation: None }
    }
}

inner_service!(ConcurrencyLimit::<S, L> { inner } where L: Limit);
clone_service!(ConcurrencyLimit::<S, L> { inner, permits, reservation: None } where L: Limit);

impl<S, L, R> Service<R> for ConcurrencyLimit<S, L>
where
    S: Service<R>,
    L: StartCall<R> + FinishCall<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, L>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let acquire = || self.permits.acquire(None).expect("the queue has no bound");
        if self.reservation.get_or_insert_with(acquire).poll(cx.waker()).is_none() {
            return Poll::Pending;
        }
        let ready = self.inner.poll_ready(cx);
        if let Poll::Ready(Err(_)) = ready {
            self.reservation = None;
        }
        ready
    }

    /// # Panics
    /// If `poll_ready` has not returned `Ready(Ok)`.
    fn call(&mut self, request: R) -> Self::Future {
        let permit = self.reservation.take().and_then(Reservation::into_permit);
        let mut permit = permit.expect("`call` without `poll_ready` having returned `Ready(Ok)`");
        permit.start(&request);
        ResponseFuture::new(self.inner.call(request), permit)
    }
}
