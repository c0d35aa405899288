use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project::pin_project;
use tower_service::Service;

use super::FairError;
use crate::middleware::call_when_ready::CallWhenReady;
use crate::middleware::clock;
use crate::middleware::concurrency::limit::{FinishCall, Fixed, Limit, StartCall};
use crate::middleware::concurrency::permits::{Permit, Reservation};
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// A call that has a permit or waits for one.
///
/// # Panics
/// If the call has to wait for a permit, polling needs a Tokio runtime with time enabled.
#[pin_project]
#[derive(Debug)]
pub struct CallFuture<S: Service<R>, R, L: Limit = Fixed> {
    // Dropped in this order: the permit is free when the work has stopped.
    #[pin]
    call: CallWhenReady<S, R>,
    /// `None` once the call has ended.
    reservation: Option<Reservation<L>>,
    /// Bounds the wait for the permit.
    #[pin]
    timer: LazyTimer,
    /// When it began to wait.
    since: Option<Instant>,
}

impl<S: Service<R>, R, L: Limit> CallFuture<S, R, L> {
    pub(super) fn called(future: S::Future, permit: Permit<L>) -> Self {
        let (call, reservation) = (CallWhenReady::called(future), Some(Reservation::Permit(permit)));
        Self { call, reservation, timer: LazyTimer::new(None), since: None }
    }

    /// `service` must not have been polled ready.
    pub(super) fn waiting(service: S, request: R, reservation: Reservation<L>, max_wait: Duration) -> Self
    where
        R: RequestContext,
    {
        let since = clock::now();
        // A wait too long for an `Instant` is as long as the deadline allows.
        let until = [since.checked_add(max_wait), request.deadline()].into_iter().flatten().min();
        let call = CallWhenReady::waiting(service, request);
        Self { call, reservation: Some(reservation), timer: LazyTimer::new(until), since: Some(since) }
    }
}

impl<S, R, L> Future for CallFuture<S, R, L>
where
    S: Service<R>,
    L: StartCall<R> + FinishCall<S::Response, S::Error>,
{
    type Output = Result<S::Response, FairError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let reservation = this.reservation.as_mut().expect("polled after completion");
        let Some(permit) = reservation.poll(cx.waker()) else {
            ready!(this.timer.poll_elapsed(cx));
            let waited = this.since.map_or(Duration::ZERO, |since| clock::read().saturating_duration_since(since));
            this.call.cancel();
            *this.reservation = None;
            return Poll::Ready(Err(FairError::TimedOut { waited }));
        };
        let result = ready!(this.call.as_mut().poll(cx, |request| permit.start(request)));
        if let Some(permit) = this.reservation.take().and_then(Reservation::into_permit) {
            permit.finish(&result);
        }
        Poll::Ready(result.map_err(FairError::Inner))
    }
}
