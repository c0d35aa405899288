use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::limit::{FinishCall, Fixed, Limit, StartCall};
use super::permits::{Acquired, Permit, Permits, Waiter};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Limits how many calls of the inner service run at a time. See the [module](super).
#[derive(Debug)]
pub struct ConcurrencyLimit<S, L: Limit = Fixed> {
    inner: S,
    permits: Arc<Permits<L>>,
    reservation: Reservation<L>,
}

#[derive(Debug)]
enum Reservation<L: Limit> {
    None,
    Waiting(Waiter<L>),
    Permit(Permit<L>),
}

impl<S, L: Limit> ConcurrencyLimit<S, L> {
    pub(super) fn new(inner: S, permits: Arc<Permits<L>>) -> Self {
        Self { inner, permits, reservation: Reservation::None }
    }

    /// Returns whether a permit is reserved, and reserves one if possible.
    fn poll_permit(&mut self, cx: &Context<'_>) -> bool {
        if let Reservation::None = self.reservation {
            self.reservation = match self.permits.acquire(None) {
                Acquired::Permit(permit) => Reservation::Permit(permit),
                Acquired::Waiting(waiter) => Reservation::Waiting(waiter),
                Acquired::Full { .. } => unreachable!("the queue has no bound"),
            };
        }
        if let Reservation::Waiting(waiter) = &mut self.reservation
            && let Some(permit) = waiter.poll(cx.waker())
        {
            self.reservation = Reservation::Permit(permit);
        }
        matches!(self.reservation, Reservation::Permit(_))
    }
}

inner_service!(ConcurrencyLimit::<S, L> { inner } where L: Limit);
clone_service!(ConcurrencyLimit::<S, L> { inner, permits, reservation: Reservation::None } where L: Limit);

impl<S, L, R> Service<R> for ConcurrencyLimit<S, L>
where
    S: Service<R>,
    L: StartCall<R> + FinishCall<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, L>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if !self.poll_permit(cx) {
            return Poll::Pending;
        }
        let ready = self.inner.poll_ready(cx);
        if let Poll::Ready(Err(_)) = ready {
            self.reservation = Reservation::None;
        }
        ready
    }

    /// # Panics
    /// If `poll_ready` has not returned `Ready(Ok)`.
    fn call(&mut self, request: R) -> Self::Future {
        let Reservation::Permit(mut permit) = std::mem::replace(&mut self.reservation, Reservation::None) else {
            panic!("`call` without `poll_ready` having returned `Ready(Ok)`");
        };
        permit.start(&request);
        ResponseFuture::new(self.inner.call(request), permit)
    }
}
