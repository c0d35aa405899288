use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::policy::{Policy, WhenNotReady};
use super::{LoadShedError, ResponseFuture};
use crate::middleware::call_when_ready::poll_ready_without_budget;
use crate::middleware::inner_service::{clone_service, inner_service};

/// Rejects calls that would wait too long. See the [module](super).
#[derive(Debug)]
pub struct LoadShed<S, P = WhenNotReady> {
    inner: S,
    /// Whether the inner service was ready when it was last polled.
    is_ready: bool,
    /// `None` if the layer is off.
    policy: Option<Arc<P>>,
}

impl<S, P> LoadShed<S, P> {
    pub(super) fn new(inner: S, policy: Arc<P>) -> Self {
        Self { inner, is_ready: false, policy: Some(policy) }
    }

    /// Rejects nothing, and is ready when `inner` is.
    pub(crate) fn off(inner: S) -> Self {
        Self { inner, is_ready: false, policy: None }
    }
}

inner_service!(LoadShed::<S, P> { inner });
clone_service!(LoadShed::<S, P> { inner, policy, is_ready: false });

impl<S, P, R> Service<R> for LoadShed<S, P>
where
    S: Service<R> + Clone,
    P: Policy<R, S::Response>,
{
    type Response = S::Response;
    type Error = LoadShedError<S::Error>;
    type Future = ResponseFuture<S, R, P>;

    /// Always ready: whether a call is admitted or rejected is decided in `call`.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.policy.is_none() {
            return self.inner.poll_ready(cx).map_err(LoadShedError::Inner);
        }
        self.is_ready = poll_ready_without_budget(&mut self.inner, cx).map_err(LoadShedError::Inner)?.is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let mut admission = None;
        if let Some(policy) = &self.policy {
            let is_ready = mem::take(&mut self.is_ready);
            let admitted = match policy.admit(&request, is_ready) {
                Ok(admitted) => admitted,
                Err(rejection) => {
                    if is_ready {
                        self.is_ready = true;
                    } else {
                        // It may be queued in the inner service, for capacity that no call would use.
                        self.inner = self.inner.clone();
                    }
                    return ResponseFuture::rejected(rejection);
                }
            };
            P::annotate(&mut request, &admitted);
            if !is_ready {
                // The service that was polled keeps its place in the inner service's queue, and waits in the call.
                let policy = Arc::clone(policy);
                let fresh = self.inner.clone();
                let polled = mem::replace(&mut self.inner, fresh);
                let until = policy.wait_until(&request);
                return ResponseFuture::waiting(polled, request, admitted, policy, until);
            }
            admission = Some(admitted);
        }
        ResponseFuture::called(self.inner.call(request), admission)
    }
}
