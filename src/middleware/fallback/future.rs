use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::layer::Shared;
use super::stats::count;
use super::{Choose, FallbackError};
use crate::error::AnyError;
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// The answer of a [`Fallback`](super::Fallback).
///
/// # Panics
/// Where the fallback is not ready at once and the request has a deadline, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, F: Service<R>, R, C> {
    #[pin]
    state: State<S, F, R, C>,
    /// `None` where the fallback has no part in it, or has all that it needs.
    kept: Option<Kept<F, R, C>>,
}

/// What the fallback needs.
pub(super) struct Kept<F, R, C> {
    fallback: CloneSource<F>,
    request: R,
    shared: Arc<Shared<C>>,
}

impl<F, R, C> Kept<F, R, C> {
    pub(super) fn new(fallback: CloneSource<F>, request: R, shared: Arc<Shared<C>>) -> Self {
        Self { fallback, request, shared }
    }
}

#[pin_project(project = StateProj)]
enum State<S: Service<R>, F: Service<R>, R, C> {
    Primary {
        #[pin]
        future: S::Future,
    },
    /// The primary service was not called, because it was not ready.
    Unready { error: Option<S::Error> },
    ForReadiness {
        error: Option<S::Error>,
        service: F,
        #[pin]
        timer: LazyTimer,
        in_flight: Option<InFlight<C>>,
    },
    Fallback {
        error: Option<S::Error>,
        #[pin]
        future: F::Future,
        in_flight: Option<InFlight<C>>,
    },
}

/// A call that the fallback has.
struct InFlight<C>(Arc<Shared<C>>);

impl<C> InFlight<C> {
    fn begin(shared: &Arc<Shared<C>>) -> Self {
        count(&shared.counts.in_flight);
        Self(Arc::clone(shared))
    }
}

impl<C> Drop for InFlight<C> {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Service<R>, F: Service<R>, R, C> ResponseFuture<S, F, R, C> {
    #[inline]
    pub(super) fn called(future: S::Future, kept: Option<Kept<F, R, C>>) -> Self {
        Self { state: State::Primary { future }, kept }
    }

    #[cold]
    pub(super) fn unready(error: S::Error, kept: Option<Kept<F, R, C>>) -> Self {
        Self { state: State::Unready { error: Some(error) }, kept }
    }
}

const DONE: &str = "polled after it had completed";

impl<F: Service<R> + Clone, R: RequestContext, C> Kept<F, R, C> {
    #[cold]
    fn fall_back<S: Service<R, Error: AnyError>>(&self, error: S::Error) -> State<S, F, R, C> {
        tracing::debug!(operation = self.request.operation(), kind = %error.classify().kind, "falling back");
        State::ForReadiness {
            error: Some(error),
            service: self.fallback.get(),
            timer: LazyTimer::new(self.request.deadline()),
            in_flight: Some(InFlight::begin(&self.shared)),
        }
    }

    fn is_late(&self) -> bool {
        self.request.deadline().is_some_and(|deadline| deadline <= clock::read())
    }
}

impl<S, F, R, C> Future for ResponseFuture<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: Choose<R, S::Error>,
    R: RequestContext,
{
    type Output = Result<S::Response, FallbackError<S::Error, F::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Primary { future } => match (ready!(future.poll(cx)), &this.kept) {
                    (Ok(response), _) => return Poll::Ready(Ok(response)),
                    (Err(error), Some(kept)) if kept.shared.choice.is_reason(&error) => kept.fall_back(error),
                    (Err(error), _) => return Poll::Ready(Err(FallbackError::Primary(error))),
                },
                StateProj::Unready { error } => {
                    let error = error.take().expect(DONE);
                    match &this.kept {
                        Some(kept) => kept.fall_back(error),
                        None => return Poll::Ready(Err(FallbackError::Primary(error))),
                    }
                }
                StateProj::ForReadiness { error, service, timer, in_flight } => {
                    let kept = this.kept.as_ref().expect(DONE);
                    // A request that is late is not sent even if there is room now.
                    let ready = if kept.is_late() { None } else { Some(service.poll_ready(cx)) };
                    match ready {
                        Some(Poll::Ready(Ok(()))) => {
                            count(&kept.shared.counts.fell_back);
                            let request = this.kept.take().expect(DONE).request;
                            let (error, in_flight) = (error.take(), in_flight.take());
                            State::Fallback { error, future: service.call(request), in_flight }
                        }
                        Some(Poll::Ready(Err(fallback))) => {
                            count(&kept.shared.counts.fell_back);
                            count(&kept.shared.counts.failed);
                            *in_flight = None;
                            let primary = error.take().expect(DONE);
                            return Poll::Ready(Err(FallbackError::Both { primary, fallback }));
                        }
                        Some(Poll::Pending) if timer.poll_elapsed(cx).is_pending() => return Poll::Pending,
                        _ => {
                            count(&kept.shared.counts.too_late);
                            *in_flight = None;
                            return Poll::Ready(Err(FallbackError::Primary(error.take().expect(DONE))));
                        }
                    }
                }
                StateProj::Fallback { error, future, in_flight } => {
                    let result = ready!(future.poll(cx));
                    let shared = in_flight.take().expect(DONE);
                    return Poll::Ready(result.map_err(|fallback| {
                        count(&shared.0.counts.failed);
                        FallbackError::Both { primary: error.take().expect(DONE), fallback }
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
            State::Primary { .. } => "called",
            State::Unready { .. } => "not ready",
            State::ForReadiness { .. } => "waiting for the fallback to be ready",
            State::Fallback { .. } => "called the fallback",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
