use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::limit::{FinishCall, Fixed, StartCall};
use super::shared::{Acquired, Permit, Shared, Waiter};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Limits how many calls of the inner service run at a time. See the [module](super).
#[derive(Debug)]
pub struct ConcurrencyLimit<S, L = Fixed> {
    inner: S,
    shared: Arc<Shared<L>>,
    reservation: Reservation<L>,
}

#[derive(Debug)]
enum Reservation<L> {
    None,
    Waiting(Waiter<L>),
    Permit(Permit<L>),
}

impl<S, L> ConcurrencyLimit<S, L> {
    pub(super) fn new(inner: S, shared: Arc<Shared<L>>) -> Self {
        Self { inner, shared, reservation: Reservation::None }
    }

    /// Returns whether a permit is reserved, and reserves one if possible.
    fn poll_permit(&mut self, cx: &Context<'_>) -> bool {
        if let Reservation::None = self.reservation {
            self.reservation = match self.shared.acquire(None) {
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

inner_service!(ConcurrencyLimit < S, L > { inner });
clone_service!(ConcurrencyLimit<S, L> { inner, shared, reservation: Reservation::None });

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
        let Reservation::Permit(permit) = std::mem::replace(&mut self.reservation, Reservation::None) else {
            panic!("`call` without a successful `poll_ready`");
        };
        let call = permit.start(&request);
        ResponseFuture::new(self.inner.call(request), call)
    }
}
