use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower_service::Service;

use super::TimeoutError;
use crate::middleware::call_when_ready::CallWhenReady;
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
    Oneshot { deadline, timer: LazyTimer::new(deadline), call: CallWhenReady::waiting(service, request) }
}

pin_project! {
    /// The future of [`oneshot`].
    ///
    /// # Panics
    /// If the service is not ready at once, or its response is not, and there is no Tokio runtime with time enabled.
    #[derive(Debug)]
    pub struct Oneshot<S: Service<R>, R> {
        deadline: Option<Instant>,
        #[pin]
        timer: LazyTimer,
        #[pin]
        call: CallWhenReady<S, R>,
    }
}

impl<S, R> Future for Oneshot<S, R>
where
    S: Service<R>,
{
    type Output = Result<S::Response, TimeoutError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let is_waiting = this.call.request().is_some();
        // A late request is not called even if the service is ready now.
        let is_late = is_waiting && this.deadline.is_some_and(|deadline| deadline <= clock::now());
        if !is_late {
            if let Poll::Ready(result) = this.call.as_mut().poll(cx, |_| {}) {
                return Poll::Ready(result.map_err(TimeoutError::Inner));
            }
            if is_waiting && this.call.request().is_none() {
                // Timers of one instant fire in the order of their creation. One of the same deadline further in is to
                // fire first, so that the layers around it see the timeout.
                this.timer.set(LazyTimer::new(*this.deadline));
            }
            ready!(this.timer.poll_elapsed(cx));
        }
        let called = this.call.request().is_none();
        this.call.cancel();
        Poll::Ready(Err(TimeoutError::Elapsed { called }))
    }
}
