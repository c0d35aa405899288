use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::LoadShedError;
use super::policy::{Admit, Answered, Policy, Refusal, WhenNotReady};
use crate::layers::timeout::Timer;

/// The answer of a [`LoadShed`](super::LoadShed).
///
/// # Panics
/// Where the call was let in before the inner service was ready, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, P: Policy = WhenNotReady> {
    #[pin]
    state: State<S, R, P>,
}

/// `ForReadiness`, then `Called`; most calls begin as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R, P: Policy> {
    ForReadiness {
        waiting: Option<Waiting<S, R, P>>,
        #[pin]
        timer: Timer,
    },
    Called {
        // Dropped in this order: the work counts until it has stopped.
        #[pin]
        future: S::Future,
        /// `None` once it has ended.
        admitted: Option<P::Admitted>,
    },
    Refused {
        refusal: Refusal,
    },
}

struct Waiting<S, R, P: Policy> {
    service: S,
    request: R,
    admitted: P::Admitted,
    policy: Arc<P>,
}

impl<S: Service<R>, R, P: Policy> ResponseFuture<S, R, P> {
    #[inline]
    pub(super) fn called(future: S::Future, admitted: P::Admitted) -> Self {
        Self { state: State::Called { future, admitted: Some(admitted) } }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal } }
    }

    pub(super) fn waiting(
        service: S,
        request: R,
        admitted: P::Admitted,
        policy: Arc<P>,
        until: Option<Instant>,
    ) -> Self {
        let waiting = Some(Waiting { service, request, admitted, policy });
        Self { state: State::ForReadiness { waiting, timer: Timer::new(until) } }
    }
}

const DONE: &str = "polled after it had completed";

fn error<E>(refusal: Refusal) -> LoadShedError<E> {
    match refusal {
        Refusal::NotReady => LoadShedError::NotReady,
        Refusal::Late { predicted_wait, retry_after } => LoadShedError::Late { predicted_wait, retry_after },
    }
}

impl<S, R, P> Future for ResponseFuture<S, R, P>
where
    S: Service<R>,
    P: Admit<R> + Answered<S::Response>,
{
    type Output = Result<S::Response, LoadShedError<S::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Called { future, admitted } => {
                    let result = ready!(future.poll(cx));
                    // Where it is: moved out, to be dropped here, it would cost a tenth of the whole layer.
                    if let Some(admitted) = admitted.as_mut()
                        && let Ok(response) = &result
                    {
                        P::answered(admitted, response);
                    }
                    *admitted = None;
                    return Poll::Ready(result.map_err(LoadShedError::Inner));
                }
                StateProj::ForReadiness { waiting, timer } => {
                    match waiting.as_mut().expect(DONE).service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let Waiting { mut service, request, mut admitted, .. } = waiting.take().expect(DONE);
                            P::called(&mut admitted);
                            State::Called { future: service.call(request), admitted: Some(admitted) }
                        }
                        Poll::Ready(Err(error)) => {
                            *waiting = None;
                            return Poll::Ready(Err(LoadShedError::Inner(error)));
                        }
                        Poll::Pending => {
                            ready!(timer.poll_elapsed(cx));
                            let Waiting { request, policy, service, admitted } = waiting.take().expect(DONE);
                            drop((service, admitted));
                            return Poll::Ready(Err(error(policy.waited(&request))));
                        }
                    }
                }
                StateProj::Refused { refusal } => return Poll::Ready(Err(error(*refusal))),
            };
            state.set(next);
        }
    }
}

impl<S: Service<R>, R, P: Policy> fmt::Debug for ResponseFuture<S, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::ForReadiness { .. } => "waiting for readiness",
            State::Called { .. } => "called",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
