use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::latency::Latencies;
use super::layer::Policy;
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::derive_debug;
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
    policy: Arc<Policy>,
}

derive_debug!(ResponseFuture::<S, R> { policy } where S: Service<R>);

/// Records the latency of a call.
pub(super) struct Measurement {
    pub(super) latencies: Arc<Latencies>,
    /// `None` if it shares its latencies with other operations.
    pub(super) operation: Option<Arc<str>>,
    pub(super) start: Instant,
}

impl Measurement {
    fn record(&self) {
        let latency = clock::read().saturating_duration_since(self.start);
        self.latencies.record(self.operation.as_ref(), latency);
    }
}

/// The second attempt: `Planned`, `AwaitReady` and `Call` in this order, or `None` at any time.
#[pin_project(project = HedgeProj)]
pub(super) enum HedgeAttempt<S: Service<R>, R> {
    None,
    Planned {
        source: CloneSource<S>,
        request: Option<R>,
        #[pin]
        timer: LazyTimer,
    },
    AwaitReady {
        service: S,
        request: Option<R>,
        permit: BudgetPermit,
    },
    Call {
        #[pin]
        future: S::Future,
    },
}

impl<S: Service<R> + Clone, R> HedgeAttempt<S, R> {
    pub(super) fn planned(source: CloneSource<S>, request: R, due: Instant) -> Self {
        Self::Planned { source, request: Some(request), timer: LazyTimer::new(Some(due)) }
    }

    /// Ready with the result of the second attempt. Pending if it is not made.
    fn poll(mut self: Pin<&mut Self>, policy: &Policy, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        loop {
            let next = match self.as_mut().project() {
                HedgeProj::None => return Poll::Pending,
                HedgeProj::Planned { source, request, timer } => {
                    if timer.poll_elapsed(cx).is_pending() {
                        return Poll::Pending;
                    }
                    match policy.budget.withdraw() {
                        Some(permit) => Self::AwaitReady { service: source.get(), request: request.take(), permit },
                        None => {
                            policy.counts.lock().budget_exhausted += 1;
                            Self::None
                        }
                    }
                }
                HedgeProj::AwaitReady { service, request, permit } => match service.poll_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The first attempt goes on, and is more likely to succeed.
                    Poll::Ready(Err(_)) => Self::None,
                    Poll::Ready(Ok(())) => {
                        permit.spend();
                        policy.counts.lock().hedged += 1;
                        Self::Call { future: service.call(request.take().expect("taken once")) }
                    }
                },
                HedgeProj::Call { future } => return future.poll(cx),
            };
            self.set(next);
        }
    }
}

impl<S, R> ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext> + Clone,
{
    pub(super) fn new(
        first: S::Future,
        hedge: HedgeAttempt<S, R>,
        measurement: Option<Measurement>,
        policy: Arc<Policy>,
    ) -> Self {
        Self { first: Some(first), hedge, measurement, policy }
    }

    /// Ready with the first success, or with a failure that no attempt follows.
    fn poll_attempts(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.project();
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            if !has_failed(&result) || !matches!(*this.hedge, HedgeAttempt::Call { .. }) {
                return Poll::Ready(result);
            }
            this.first.set(None);
        }
        let result = ready!(this.hedge.as_mut().poll(this.policy, cx));
        if !has_failed(&result) {
            this.policy.counts.lock().won += 1;
        } else if this.first.is_some() {
            this.hedge.set(HedgeAttempt::None);
            return Poll::Pending;
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
