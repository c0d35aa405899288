use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::policy::{InFlight, Shared};
use super::{FallbackError, FallbackPolicy};
use crate::error::AnyError;
use crate::middleware::derive::derive_debug;
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
    /// The error of the primary service, once it has failed.
    error: Option<S::Error>,
    /// `None` if the fallback must not run the request, and once it is called.
    plan: Option<Plan<F, R, C>>,
    in_flight: Option<InFlight>,
}

derive_debug!(ResponseFuture::<S, F, R, C> { plan } where S: Service<R>, F: Service<R>);

/// What a call of the fallback needs.
pub(super) struct Plan<F, R, C> {
    pub(super) request: R,
    pub(super) shared: Arc<Shared<F, R, C>>,
}

derive_debug!(Plan::<F, R, C> { shared });

#[pin_project(project = StateProj)]
enum State<S: Service<R>, F: Service<R>, R> {
    Primary {
        #[pin]
        future: S::Future,
    },
    /// The primary service or its readiness has failed.
    Failed,
    AwaitReady {
        service: F,
        #[pin]
        timer: LazyTimer,
    },
    Fallback {
        #[pin]
        future: F::Future,
    },
}

const COMPLETED: &str = "polled after completion";

impl<S: Service<R>, F: Service<R>, R, C> ResponseFuture<S, F, R, C> {
    pub(super) fn call(future: S::Future, plan: Option<Plan<F, R, C>>) -> Self {
        Self { state: State::Primary { future }, error: None, plan, in_flight: None }
    }

    pub(super) fn unready(error: S::Error, plan: Option<Plan<F, R, C>>) -> Self {
        Self { state: State::Failed, error: Some(error), plan, in_flight: None }
    }
}

impl<S, F, R, C> Future for ResponseFuture<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: FallbackPolicy<S::Error>,
    R: RequestContext,
{
    type Output = Result<S::Response, FallbackError<S::Error, F::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Primary { future } => match ready!(future.poll(cx)) {
                    Ok(response) => return Poll::Ready(Ok(response)),
                    Err(error) => {
                        this.plan.take_if(|plan| !plan.shared.errors.accepts_error(&error));
                        *this.error = Some(error);
                        State::Failed
                    }
                },
                StateProj::Failed => {
                    let Some(Plan { request, shared }) = this.plan else {
                        return Poll::Ready(Err(FallbackError::Primary(this.error.take().expect(COMPLETED))));
                    };
                    tracing::debug!(
                        operation = request.operation(),
                        kind = %this.error.as_ref().expect(COMPLETED).classify().kind,
                        "falling back"
                    );
                    *this.in_flight = Some(InFlight::new(&shared.counts));
                    State::AwaitReady { service: shared.fallback.get(), timer: LazyTimer::new(request.deadline()) }
                }
                StateProj::AwaitReady { service, timer } => {
                    // First, as a request past its deadline is not sent even if the fallback is ready.
                    if timer.poll_elapsed(cx).is_ready() {
                        let Plan { shared, .. } = this.plan.take().expect(COMPLETED);
                        shared.counts.lock().deadline_exceeded += 1;
                        *this.in_flight = None;
                        return Poll::Ready(Err(FallbackError::Primary(this.error.take().expect(COMPLETED))));
                    }
                    let ready = ready!(service.poll_ready(cx));
                    let Plan { request, shared } = this.plan.take().expect(COMPLETED);
                    shared.counts.lock().fell_back += 1;
                    match ready {
                        Ok(()) => State::Fallback { future: service.call(request) },
                        Err(error) => break Err(error),
                    }
                }
                StateProj::Fallback { future } => break ready!(future.poll(cx)),
            };
            this.state.set(next);
        };
        let in_flight = this.in_flight.take();
        Poll::Ready(result.map_err(|fallback| {
            in_flight.expect(COMPLETED).count_failure();
            FallbackError::Both { primary: this.error.take().expect(COMPLETED), fallback }
        }))
    }
}
