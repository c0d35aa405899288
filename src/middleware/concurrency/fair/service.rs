use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::InLine;
use super::shares::Entry;
use super::{FairError, Line, ResponseFuture};
use crate::middleware::concurrency::limit::{Begin, End, Fixed};
use crate::middleware::inner_service::inner_service;
use crate::request::RequestContext;
use crate::request::limits::tenant_key;

/// Calls the inner service so many times at a time, in fair shares of tenants. See the [module](super).
#[derive(Debug)]
pub struct Fair<S, L = Fixed> {
    inner: S,
    line: Line<L>,
}

impl<S, L> Fair<S, L> {
    pub(super) fn new(inner: S, line: Line<L>) -> Self {
        Self { inner, line }
    }
}

inner_service!(Fair::<S, L> { inner });

impl<S, L, R> Service<R> for Fair<S, L>
where
    S: Service<R> + Clone,
    R: RequestContext,
    L: Begin<R> + End<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = FairError<S::Error>;
    type Future = ResponseFuture<S, R, L>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(FairError::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let shared = &self.line.shared;
        match shared.places.enter(tenant_key(&request)) {
            Entry::Held(held) => {
                let running = shared.begin(held, &request);
                ResponseFuture::called(self.inner.call(request), running)
            }
            Entry::Waiting(ticket) => {
                let line = InLine::new(Arc::clone(shared), ticket);
                // The service that was ready holds a place further in; it is let go, as this call will not run for a
                // while.
                let unready = self.inner.clone();
                drop(mem::replace(&mut self.inner, unready.clone()));
                ResponseFuture::waiting(unready, request, line, self.line.max_wait)
            }
            Entry::Full { waiting } => ResponseFuture::full(waiting),
        }
    }
}

// By hand: a clone needs no `L: Clone`, the places are shared.
impl<S: Clone, L> Clone for Fair<S, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), line: self.line.clone() }
    }
}
