use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower_service::Service;

use super::TimeoutError;
use crate::middleware::clock;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::RequestContext;

/// Waits until `service` is ready and calls it with `request`, both within the request's deadline.
///
/// It is `tower`'s `ServiceExt::oneshot` with a bound on the wait: under load a service is not ready for as long as the
/// machine is full, and without the bound a request can be long past its deadline before a
/// [`Timeout`](super::Timeout) further in sees it. A request without a deadline waits for as long as it takes.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tower::{limit::ConcurrencyLimit, service_fn};
/// use tower_kernels::middleware::timeout::{self, TimeoutError};
/// use tower_kernels::request::RequestContext;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // A service that is never ready.
/// let full = ConcurrencyLimit::new(service_fn(|_: http::Request<()>| async { Ok::<_, ()>(()) }), 0);
/// let mut request = http::Request::new(());
/// request.set_deadline(Instant::now() + Duration::from_millis(10));
///
/// let error = timeout::oneshot(full, request).await.unwrap_err();
/// assert_eq!(error, TimeoutError::Elapsed { called: false });
/// # }
/// ```
pub fn oneshot<S, R>(service: S, request: R) -> Oneshot<S, R>
where
    S: Service<R>,
    R: RequestContext,
{
    let deadline = request.deadline();
    Oneshot { deadline, timer: LazyTimer::new(deadline), state: State::Waiting { service, request: Some(request) } }
}

pin_project! {
    /// The future of [`oneshot`].
    ///
    /// # Panics
    /// If the service is not ready at once, or its response is not, and there is no Tokio runtime with time enabled.
    pub struct Oneshot<S: Service<R>, R> {
        deadline: Option<Instant>,
        #[pin]
        timer: LazyTimer,
        #[pin]
        state: State<S, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: Service<R>, R> {
        // Until the service is ready; then the request is taken.
        Waiting {
            service: S,
            request: Option<R>,
        },
        Called {
            #[pin]
            future: S::Future,
        },
        Done,
    }
}

impl<S, R> Future for Oneshot<S, R>
where
    S: Service<R>,
{
    type Output = Result<S::Response, TimeoutError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let called = loop {
            match this.state.as_mut().project() {
                StateProj::Waiting { service, request } => {
                    // A late request is not called even if the service is ready now.
                    if this.deadline.is_some_and(|deadline| deadline <= clock::now()) {
                        break false;
                    }
                    match service.poll_ready(cx).map_err(TimeoutError::Inner)? {
                        Poll::Ready(()) => {
                            let request = request.take().expect("called only once");
                            let future = service.call(request);
                            this.state.set(State::Called { future });
                            // Timers of one instant fire in the order of their creation. One of the same deadline
                            // further in is to fire first, so that the layers around it see the timeout.
                            this.timer.set(LazyTimer::new(*this.deadline));
                        }
                        Poll::Pending => {
                            ready!(this.timer.as_mut().poll_elapsed(cx));
                            break false;
                        }
                    }
                }
                StateProj::Called { future } => {
                    if let Poll::Ready(result) = future.poll(cx) {
                        return Poll::Ready(result.map_err(TimeoutError::Inner));
                    }
                    ready!(this.timer.as_mut().poll_elapsed(cx));
                    break true;
                }
                StateProj::Done => panic!("polled after it had completed"),
            }
        };
        this.state.set(State::Done);
        Poll::Ready(Err(TimeoutError::Elapsed { called }))
    }
}

impl<S: Service<R>, R> fmt::Debug for Oneshot<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Called { .. } => "called",
            State::Done => "done",
        };
        f.debug_struct("Oneshot").field("deadline", &self.deadline).field("state", &state).finish_non_exhaustive()
    }
}
