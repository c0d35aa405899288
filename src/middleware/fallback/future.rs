use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::counts::{InFlight, count};
use super::layer::Shared;
use super::{FallbackError, FallbackPolicy};
use crate::error::AnyError;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// Response future of [`Fallback`](super::Fallback).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the fallback is called and the request has a deadline.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, F: Service<R>, R, C> {
    #[pin]
    state: State<S, F, R>,
    /// `None` if the fallback must not run the request, and once it is called.
    plan: Option<Plan<F, R, C>>,
}

/// What a call of the fallback needs.
pub(super) struct Plan<F, R, C> {
    pub(super) fallback: CloneSource<F>,
    pub(super) request: R,
    pub(super) shared: Arc<Shared<C>>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<R>, F: Service<R>, R> {
    Primary {
        #[pin]
        future: S::Future,
    },
    /// The primary service was not called, as its readiness failed.
    Unready { error: Option<S::Error> },
    AwaitReady {
        error: Option<S::Error>,
        service: F,
        #[pin]
        timer: LazyTimer,
        in_flight: Option<InFlight>,
    },
    Fallback {
        error: Option<S::Error>,
        #[pin]
        future: F::Future,
        in_flight: Option<InFlight>,
    },
}

const COMPLETED: &str = "polled after completion";

impl<S: Service<R>, F: Service<R>, R, C> ResponseFuture<S, F, R, C> {
    pub(super) fn call(future: S::Future, plan: Option<Plan<F, R, C>>) -> Self {
        Self { state: State::Primary { future }, plan }
    }

    pub(super) fn unready(error: S::Error, plan: Option<Plan<F, R, C>>) -> Self {
        Self { state: State::Unready { error: Some(error) }, plan }
    }
}

impl<F: Service<R> + Clone, R: RequestContext, C> Plan<F, R, C> {
    fn fall_back<S: Service<R, Error: AnyError>>(&self, error: S::Error) -> State<S, F, R> {
        tracing::debug!(operation = self.request.operation(), kind = %error.classify().kind, "falling back");
        State::AwaitReady {
            error: Some(error),
            service: self.fallback.get(),
            timer: LazyTimer::new(self.request.deadline()),
            in_flight: Some(InFlight::new(&self.shared.counts)),
        }
    }
}

impl<S, F, R, C> Future for ResponseFuture<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: FallbackPolicy<R, S::Error>,
    R: RequestContext,
{
    type Output = Result<S::Response, FallbackError<S::Error, F::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Primary { future } => match (ready!(future.poll(cx)), &this.plan) {
                    (Ok(response), _) => return Poll::Ready(Ok(response)),
                    (Err(error), Some(plan)) if plan.shared.policy.accepts_error(&error) => plan.fall_back(error),
                    (Err(error), _) => return Poll::Ready(Err(FallbackError::Primary(error))),
                },
                StateProj::Unready { error } => {
                    let error = error.take().expect(COMPLETED);
                    match &this.plan {
                        Some(plan) => plan.fall_back(error),
                        None => return Poll::Ready(Err(FallbackError::Primary(error))),
                    }
                }
                StateProj::AwaitReady { error, service, timer, in_flight } => {
                    // First, as a request past its deadline is not sent even if the fallback is ready.
                    let late = timer.poll_elapsed(cx).is_ready();
                    let ready = if late { Ok(()) } else { ready!(service.poll_ready(cx)) };
                    let (error, in_flight) = (error.take().expect(COMPLETED), in_flight.take().expect(COMPLETED));
                    let Plan { request, shared, .. } = this.plan.take().expect(COMPLETED);
                    if late {
                        count(&shared.counts.deadline_exceeded);
                        return Poll::Ready(Err(FallbackError::Primary(error)));
                    }
                    count(&shared.counts.fell_back);
                    if let Err(fallback) = ready {
                        count(&shared.counts.failed);
                        return Poll::Ready(Err(FallbackError::Both { primary: error, fallback }));
                    }
                    State::Fallback { error: Some(error), future: service.call(request), in_flight: Some(in_flight) }
                }
                StateProj::Fallback { error, future, in_flight } => {
                    let result = ready!(future.poll(cx));
                    let in_flight = in_flight.take().expect(COMPLETED);
                    return Poll::Ready(result.map_err(|fallback| {
                        count(&in_flight.0.failed);
                        FallbackError::Both { primary: error.take().expect(COMPLETED), fallback }
                    }));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<R>, F: Service<R>, R, C> fmt::Debug for ResponseFuture<S, F, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Primary { .. } => "primary",
            State::Unready { .. } => "unready",
            State::AwaitReady { .. } => "await ready",
            State::Fallback { .. } => "fallback",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
