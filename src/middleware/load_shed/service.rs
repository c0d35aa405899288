use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::coop;
use tower_service::Service;

use super::policy::{Admit, Answered, Policy, Refusal, WhenNotReady};
use super::{LoadShedError, ResponseFuture};
use crate::middleware::inner_service::inner_service;

/// Refuses calls that come to nothing. See the [module](super).
#[derive(Debug)]
pub struct LoadShed<S, P = WhenNotReady> {
    inner: S,
    /// Whether the inner service said so when it was asked last.
    is_ready: bool,
    /// `None` where it is off.
    policy: Option<Arc<P>>,
}

impl<S, P> LoadShed<S, P> {
    pub(super) fn new(inner: S, policy: Arc<P>) -> Self {
        Self { inner, is_ready: false, policy: Some(policy) }
    }

    /// Refuses nothing, and is as ready as `inner`.
    pub(crate) fn off(inner: S) -> Self {
        Self { inner, is_ready: false, policy: None }
    }
}

inner_service!(LoadShed::<S, P> { inner });

impl<S, P, R> Service<R> for LoadShed<S, P>
where
    S: Service<R> + Clone,
    P: Admit<R> + Answered<S::Response>,
{
    type Response = S::Response;
    type Error = LoadShedError<S::Error>;
    type Future = ResponseFuture<S, R, P>;

    /// Always ready: a call is let in, or refused, and neither holds up who makes it.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.policy.is_none() {
            return self.inner.poll_ready(cx).map_err(LoadShedError::Inner);
        }
        let mut ready = self.inner.poll_ready(cx);
        if ready.is_pending() && !coop::has_budget_remaining() {
            ready = poll_outside_budget(&mut self.inner, cx);
        }
        self.is_ready = ready.map_err(LoadShedError::Inner)?.is_ready();
        Poll::Ready(Ok(()))
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, mut request: R) -> Self::Future {
        let Some(policy) = &self.policy else { return ResponseFuture::called(self.inner.call(request), None) };
        match policy.admit(&request, self.is_ready) {
            Ok(admitted) if mem::take(&mut self.is_ready) => {
                P::tell(&mut request, &admitted);
                ResponseFuture::called(self.inner.call(request), Some(admitted))
            }
            Ok(admitted) => {
                P::tell(&mut request, &admitted);
                let policy = Arc::clone(policy);
                self.wait(request, admitted, policy)
            }
            Err(refusal) => self.refuse(refusal),
        }
    }
}

impl<S: Clone, P> LoadShed<S, P> {
    /// The one that has begun to wait for readiness goes on waiting, with the call.
    #[inline(never)]
    fn wait<R>(&mut self, request: R, admitted: P::Admitted, policy: Arc<P>) -> ResponseFuture<S, R, P>
    where
        S: Service<R>,
        P: Admit<R>,
    {
        let unready = self.inner.clone();
        let service = mem::replace(&mut self.inner, unready);
        let until = policy.wait_until(&request);
        ResponseFuture::waiting(service, request, admitted, policy, until)
    }

    #[inline(never)]
    fn refuse<R>(&mut self, refusal: Refusal) -> ResponseFuture<S, R, P>
    where
        S: Service<R>,
        P: Policy,
    {
        if !mem::take(&mut self.is_ready) {
            // It waits in a queue further in, for a place that no call is there to use.
            let unready = self.inner.clone();
            drop(mem::replace(&mut self.inner, unready));
        }
        ResponseFuture::refused(refusal)
    }
}

/// A service that takes from Tokio's budget to see whether it is ready says `Pending` when there is none left, however
/// much room it has.
#[cold]
fn poll_outside_budget<S: Service<R>, R>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
    Pin::new(&mut coop::unconstrained(poll_fn(|cx| service.poll_ready(cx)))).poll(cx)
}

// By hand: what one service has found ready is not its clone's, and a clone needs no `P: Clone`.
impl<S: Clone, P> Clone for LoadShed<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), is_ready: false, policy: self.policy.clone() }
    }
}
