use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;
use tower_service::Service;

/// Polls the readiness of a service, whether or not the task has any of Tokio's cooperative budget left.
///
/// Once the budget is used up, a service that consumes it is pending whatever its capacity, which is no overload.
pub(super) fn poll_ready_without_budget<S: Service<R>, R>(
    service: &mut S,
    cx: &mut Context<'_>,
) -> Poll<Result<(), S::Error>> {
    let ready = service.poll_ready(cx);
    if ready.is_pending() && !coop::has_budget_remaining() {
        return pin!(coop::unconstrained(poll_fn(|cx| service.poll_ready(cx)))).poll(cx);
    }
    ready
}

pin_project! {
    /// A call of `service`, which is made once the service is ready.
    ///
    /// A layer that is polled ready calls its service at once, and uses [`called`](Self::called). One whose call waits for
    /// something else first uses [`waiting`](Self::waiting).
    pub(super) struct CallWhenReady<S: Service<R>, R> {
        #[pin]
        state: State<S, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: Service<R>, R> {
        Waiting {
            service: S,
            // Taken for the call.
            request: Option<R>,
        },
        Called {
            #[pin]
            future: S::Future,
        },
        Completed,
    }
}

impl<S: Service<R>, R> CallWhenReady<S, R> {
    /// A call that has been made.
    #[inline]
    pub(super) fn called(future: S::Future) -> Self {
        Self { state: State::Called { future } }
    }

    /// A call that is made once `service` is ready.
    pub(super) fn waiting(service: S, request: R) -> Self {
        Self { state: State::Waiting { service, request: Some(request) } }
    }

    /// No call.
    pub(super) fn completed() -> Self {
        Self { state: State::Completed }
    }

    /// The request, until the service is called.
    pub(super) fn request(&self) -> Option<&R> {
        match &self.state {
            State::Waiting { request, .. } => request.as_ref(),
            State::Called { .. } | State::Completed => None,
        }
    }

    /// Drops the call, and with it what the service has reserved for it.
    pub(super) fn cancel(self: Pin<&mut Self>) {
        self.project().state.set(State::Completed);
    }

    /// Polls the service until it is ready, and then the call. `before_call` runs when the service is called.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        before_call: impl FnOnce(&R),
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut state = self.project().state;
        if let StateProj::Waiting { service, request } = state.as_mut().project() {
            if let Err(error) = ready!(service.poll_ready(cx)) {
                state.set(State::Completed);
                return Poll::Ready(Err(error));
            }
            let request = request.take().expect("called only once");
            before_call(&request);
            let future = service.call(request);
            state.set(State::Called { future });
        }
        match state.project() {
            StateProj::Called { future } => future.poll(cx),
            StateProj::Waiting { .. } | StateProj::Completed => panic!("polled after completion"),
        }
    }
}

impl<S: Service<R>, R> fmt::Debug for CallWhenReady<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Waiting { .. } => "Waiting",
            State::Called { .. } => "Called",
            State::Completed => "Completed",
        })
    }
}
