use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::LoadShedError;
use super::policy::{Admit, Complete, Policy, Rejection, WhenNotReady};
use crate::middleware::lazy_timer::LazyTimer;

/// Response future of [`LoadShed`](super::LoadShed).
///
/// # Panics
/// If the call was admitted before the inner service was ready, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, P: Policy = WhenNotReady> {
    // Dropped in this order: the call counts until its work has stopped.
    #[pin]
    state: State<S, R, P>,
    /// `None` once the call has ended.
    admission: Option<P::Admission>,
}

/// `ForReadiness`, then `Called`; a call that finds the inner service ready begins as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R, P: Policy> {
    ForReadiness {
        call: Option<(S, R, Arc<P>)>,
        #[pin]
        timer: LazyTimer,
    },
    Called {
        #[pin]
        future: S::Future,
    },
    Rejected {
        rejection: Rejection,
    },
}

impl<S: Service<R>, R, P: Policy> ResponseFuture<S, R, P> {
    pub(super) fn called(future: S::Future, admission: Option<P::Admission>) -> Self {
        Self { state: State::Called { future }, admission }
    }

    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { state: State::Rejected { rejection }, admission: None }
    }

    pub(super) fn waiting(
        service: S,
        request: R,
        admission: P::Admission,
        policy: Arc<P>,
        until: Option<Instant>,
    ) -> Self {
        let call = Some((service, request, policy));
        Self { state: State::ForReadiness { call, timer: LazyTimer::new(until) }, admission: Some(admission) }
    }
}

const COMPLETED: &str = "polled after completion";

impl<S, R, P> Future for ResponseFuture<S, R, P>
where
    S: Service<R>,
    P: Admit<R> + Complete<S::Response>,
{
    type Output = Result<S::Response, LoadShedError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::ForReadiness { call, timer } => {
                    let polled = call.as_mut().expect(COMPLETED).0.poll_ready(cx);
                    if polled.is_pending() {
                        ready!(timer.poll_elapsed(cx));
                    }
                    let (mut service, request, policy) = call.take().expect(COMPLETED);
                    match polled {
                        Poll::Ready(Ok(())) => {
                            P::called(this.admission.as_mut().expect(COMPLETED));
                            State::Called { future: service.call(request) }
                        }
                        Poll::Ready(Err(error)) => {
                            *this.admission = None;
                            return Poll::Ready(Err(LoadShedError::Inner(error)));
                        }
                        Poll::Pending => {
                            drop(service);
                            *this.admission = None;
                            State::Rejected { rejection: policy.timed_out(&request) }
                        }
                    }
                }
                StateProj::Called { future } => {
                    let result = ready!(future.poll(cx));
                    if let (Some(admission), Ok(response)) = (this.admission.as_mut(), &result) {
                        P::complete(admission, response);
                    }
                    *this.admission = None;
                    return Poll::Ready(result.map_err(LoadShedError::Inner));
                }
                StateProj::Rejected { rejection } => return Poll::Ready(Err(rejection.into_error())),
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<R>, R, P: Policy> fmt::Debug for ResponseFuture<S, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::ForReadiness { .. } => "waiting for readiness",
            State::Called { .. } => "called",
            State::Rejected { .. } => "rejected",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
