use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::layer::{Delay, Shared, count};
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::lazy_timer::LazyTimer;
use crate::middleware::retry::BudgetPermit;
use crate::request::ResponseContext;

/// Response future of [`Hedge`](super::Hedge).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the inner future is pending and the request may run twice.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    /// `None` once it has failed while the hedge runs.
    #[pin]
    first: Option<S::Future>,
    #[pin]
    hedge: HedgeAttempt<S, R>,
    measurement: Option<Measurement>,
}

/// Records the latency of a call.
pub(super) struct Measurement {
    pub(super) shared: Arc<Shared>,
    /// `None` if it shares its latencies with other operations.
    pub(super) operation: Option<Arc<str>>,
    pub(super) start: Instant,
}

impl Measurement {
    fn record(&self) {
        if let Delay::Quantile(latencies) = &self.shared.delay {
            let latency = clock::read().saturating_duration_since(self.start);
            latencies.record(self.operation.as_ref(), latency);
        }
    }
}

/// The second attempt: `Planned`, `AwaitReady` and `Call` in this order, or `None` at any time.
#[pin_project(project = HedgeProj)]
pub(super) enum HedgeAttempt<S: Service<R>, R> {
    None,
    Planned {
        plan: Option<Plan<S, R>>,
        #[pin]
        timer: LazyTimer,
    },
    AwaitReady {
        service: S,
        request: Option<R>,
        permit: Option<BudgetPermit>,
        shared: Arc<Shared>,
    },
    Call {
        #[pin]
        future: S::Future,
        shared: Arc<Shared>,
    },
}

/// What a second attempt needs.
pub(super) struct Plan<S, R> {
    pub(super) source: CloneSource<S>,
    pub(super) request: R,
    pub(super) shared: Arc<Shared>,
}

const COMPLETED: &str = "polled after completion";

impl<S: Service<R>, R> HedgeAttempt<S, R> {
    pub(super) fn new(plan: Plan<S, R>, due: Instant) -> Self {
        Self::Planned { plan: Some(plan), timer: LazyTimer::new(Some(due)) }
    }

    fn is_called(&self) -> bool {
        matches!(self, Self::Call { .. })
    }

    /// Ready with the result of the second attempt. Pending if it is not made.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>>
    where
        S: Clone,
    {
        loop {
            let next = match self.as_mut().project() {
                HedgeProj::None => return Poll::Pending,
                HedgeProj::Planned { plan, timer } => {
                    if timer.poll_elapsed(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let Plan { source, request, shared } = plan.take().expect(COMPLETED);
                    match shared.budget.withdraw() {
                        Some(permit) => {
                            let (request, permit) = (Some(request), Some(permit));
                            Self::AwaitReady { service: source.get(), request, permit, shared }
                        }
                        None => {
                            count(&shared.budget_exhausted);
                            Self::None
                        }
                    }
                }
                HedgeProj::AwaitReady { service, request, permit, shared } => match service.poll_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The first attempt goes on, and is more likely to succeed.
                    Poll::Ready(Err(_)) => Self::None,
                    Poll::Ready(Ok(())) => {
                        permit.take().expect(COMPLETED).spend();
                        count(&shared.hedged);
                        let future = service.call(request.take().expect(COMPLETED));
                        Self::Call { future, shared: Arc::clone(shared) }
                    }
                },
                HedgeProj::Call { future, .. } => return future.poll(cx),
            };
            self.set(next);
        }
    }
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn new(first: S::Future, hedge: HedgeAttempt<S, R>, measurement: Option<Measurement>) -> Self {
        Self { first: Some(first), hedge, measurement }
    }
}

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext> + Clone,
{
    /// Ready with the first success, or with a failure that no attempt follows.
    fn poll_attempts(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            if !has_failed(&result) || !this.hedge.is_called() {
                return Poll::Ready(result);
            }
            this.first.set(None);
        }
        let result = ready!(this.hedge.as_mut().poll(cx));
        if has_failed(&result) && this.first.is_some() {
            this.hedge.set(HedgeAttempt::None);
            return Poll::Pending;
        }
        if let HedgeAttempt::Call { shared, .. } = &*this.hedge
            && !has_failed(&result)
        {
            count(&shared.won);
        }
        Poll::Ready(result)
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.as_mut().poll_attempts(cx));
        let mut this = self.project();
        // Cancels the other attempt now rather than when the future is dropped.
        this.first.set(None);
        this.hedge.set(HedgeAttempt::None);
        // The latency counts from the call, whichever attempt succeeded, so that hedging does not shorten the quantile that
        // it goes by.
        if let Some(measurement) = this.measurement.take()
            && !has_failed(&result)
        {
            measurement.record();
        }
        Poll::Ready(result)
    }
}

fn has_failed<T: ResponseContext, E>(result: &Result<T, E>) -> bool {
    result.as_ref().map_or(true, |response| response.failure().is_some())
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hedge = match self.hedge {
            HedgeAttempt::None => "none",
            HedgeAttempt::Planned { .. } => "planned",
            HedgeAttempt::AwaitReady { .. } => "await ready",
            HedgeAttempt::Call { .. } => "call",
        };
        f.debug_struct("ResponseFuture").field("hedge", &hedge).finish_non_exhaustive()
    }
}
