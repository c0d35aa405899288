use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::LoadShedError;
use super::policy::{Policy, WhenNotReady};
use crate::middleware::call_when_ready::CallWhenReady;
use crate::middleware::derive::derive_debug;
use crate::middleware::lazy_timer::LazyTimer;

/// Response future of [`LoadShed`](super::LoadShed).
///
/// # Panics
/// If the call was admitted before the inner service was ready, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R, P: Policy<R, S::Response> = WhenNotReady> {
    // Dropped in this order: the call counts until its work has stopped.
    #[pin]
    call: CallWhenReady<S, R>,
    /// `None` if the call was rejected, and once it has ended.
    admission: Option<P::Admission>,
    /// Set if the inner service was not ready.
    waiting: Option<Box<Waiting<P>>>,
    /// Why the call was rejected, until that is returned.
    rejection: Option<LoadShedError<Infallible>>,
}

/// Boxed, as few calls wait here and every future would have the room for it.
struct Waiting<P> {
    policy: Arc<P>,
    timer: Pin<Box<LazyTimer>>,
}

impl<S: Service<R>, R, P: Policy<R, S::Response>> ResponseFuture<S, R, P> {
    #[inline]
    pub(super) fn called(future: S::Future, admission: Option<P::Admission>) -> Self {
        Self { call: CallWhenReady::called(future), admission, waiting: None, rejection: None }
    }

    pub(super) fn waiting(
        service: S,
        request: R,
        admission: P::Admission,
        policy: Arc<P>,
        until: Option<Instant>,
    ) -> Self {
        let waiting = Some(Box::new(Waiting { policy, timer: Box::pin(LazyTimer::new(until)) }));
        let call = CallWhenReady::waiting(service, request);
        Self { call, admission: Some(admission), waiting, rejection: None }
    }

    pub(super) fn rejected(rejection: LoadShedError<Infallible>) -> Self {
        Self { call: CallWhenReady::completed(), admission: None, waiting: None, rejection: Some(rejection) }
    }
}

impl<S, R, P> Future for ResponseFuture<S, R, P>
where
    S: Service<R>,
    P: Policy<R, S::Response>,
{
    type Output = Result<S::Response, LoadShedError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(rejection) = this.rejection.take() {
            return Poll::Ready(Err(rejection.for_inner()));
        }
        let admission = this.admission.as_mut();
        if let Poll::Ready(result) = this.call.as_mut().poll(cx, |_| admission.into_iter().for_each(P::called)) {
            if let (Some(admission), Ok(response)) = (this.admission.as_mut(), &result) {
                P::complete(admission, response);
            }
            *this.admission = None;
            return Poll::Ready(result.map_err(LoadShedError::Inner));
        }
        let (Some(waiting), Some(request)) = (this.waiting, this.call.request()) else { return Poll::Pending };
        ready!(waiting.timer.as_mut().poll_elapsed(cx));
        *this.admission = None;
        let rejection = waiting.policy.timed_out(request);
        this.call.cancel();
        Poll::Ready(Err(rejection))
    }
}

derive_debug!(ResponseFuture::<S, R, P> { call } where S: Service<R>, P: Policy<R, S::Response>);
