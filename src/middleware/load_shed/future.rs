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
use crate::middleware::lazy_timer::LazyTimer;

/// The answer of a [`LoadShed`](super::LoadShed).
///
/// # Panics
/// Where the call was let in before the inner service was ready, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, P: Policy = WhenNotReady> {
    // Dropped in this order: the work counts until it has stopped.
    #[pin]
    state: State<S, R, P>,
    /// Of a call that was let in, until it has ended. Beside the state and not in it, so that the inner future is made in its
    /// place.
    admitted: Option<P::Admitted>,
}

/// `ForReadiness`, then `Called`; most calls begin as `Called`.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R, P: Policy> {
    ForReadiness {
        waiting: Option<Waiting<S, R, P>>,
        #[pin]
        timer: LazyTimer,
    },
    Called {
        #[pin]
        future: S::Future,
    },
    Refused {
        refusal: Refusal,
    },
}

struct Waiting<S, R, P> {
    service: S,
    request: R,
    policy: Arc<P>,
}

impl<S: Service<R>, R, P: Policy> ResponseFuture<S, R, P> {
    #[inline]
    pub(super) fn called(future: S::Future, admitted: Option<P::Admitted>) -> Self {
        Self { state: State::Called { future }, admitted }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal }, admitted: None }
    }

    pub(super) fn waiting(
        service: S,
        request: R,
        admitted: P::Admitted,
        policy: Arc<P>,
        until: Option<Instant>,
    ) -> Self {
        let waiting = Some(Waiting { service, request, policy });
        Self { state: State::ForReadiness { waiting, timer: LazyTimer::new(until) }, admitted: Some(admitted) }
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
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if let StateProj::Called { future } = this.state.project() {
            return poll_called::<_, P, _, _>(future, this.admitted, cx);
        }
        self.poll_admitted(cx)
    }
}

#[inline(always)]
fn poll_called<F, P, T, E>(
    future: Pin<&mut F>,
    admitted: &mut Option<P::Admitted>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, LoadShedError<E>>>
where
    F: Future<Output = Result<T, E>>,
    P: Answered<T>,
{
    // Both are looked at where they are: to take them out would be to move them.
    let polled = future.poll(cx);
    if let Poll::Ready(result) = &polled {
        if let Some(admitted) = admitted.as_mut()
            && let Ok(response) = result
        {
            P::answered(admitted, response);
        }
        *admitted = None;
    }
    polled.map_err(LoadShedError::Inner)
}

impl<S, R, P> ResponseFuture<S, R, P>
where
    S: Service<R>,
    P: Admit<R> + Answered<S::Response>,
{
    // Apart, so that a call that found the service ready is not made to keep room for it.
    #[inline(never)]
    fn poll_admitted(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Called { future } => return poll_called::<_, P, _, _>(future, this.admitted, cx),
                StateProj::ForReadiness { waiting, timer } => {
                    match waiting.as_mut().expect(DONE).service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let Waiting { mut service, request, .. } = waiting.take().expect(DONE);
                            P::called(this.admitted.as_mut().expect(DONE));
                            State::Called { future: service.call(request) }
                        }
                        Poll::Ready(Err(error)) => {
                            *waiting = None;
                            *this.admitted = None;
                            return Poll::Ready(Err(LoadShedError::Inner(error)));
                        }
                        Poll::Pending => {
                            ready!(timer.poll_elapsed(cx));
                            let Waiting { request, policy, service } = waiting.take().expect(DONE);
                            drop(service);
                            *this.admitted = None;
                            return Poll::Ready(Err(error(policy.waited(&request))));
                        }
                    }
                }
                StateProj::Refused { refusal } => return Poll::Ready(Err(error(*refusal))),
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
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
