use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::ResponseFuture;
use super::future::{Second, Timed};
use super::layer::{Delay, Shared};
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::inner_service::inner_service;
use crate::request::{RequestContext, ResponseContext};

/// Makes a second attempt where the first takes long. See the [module](super).
pub struct Hedge<S, P> {
    inner: S,
    source: CloneSource<S>,
    shared: Arc<Shared>,
    again: Arc<P>,
}

impl<S, P> Hedge<S, P> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, again: Arc<P>) -> Self
    where
        S: Clone,
    {
        Self { source: CloneSource::new(inner.clone()), inner, shared, again }
    }
}

inner_service!(Hedge::<S, P> { inner });

impl<S, P, R> Service<R> for Hedge<S, P>
where
    S: Service<R> + Clone,
    P: Fn(&R) -> bool,
    R: RequestContext + Clone,
    S::Response: ResponseContext,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        self.shared.budget.deposit();
        let (delay, timed) = match &self.shared.delay {
            Delay::Fixed(delay) => (Some(*delay), None),
            Delay::Learned(latencies) => {
                let (which, quantile) = latencies.of(request.operation());
                (quantile, Some(Timed { shared: Arc::clone(&self.shared), which, begun: clock::now() }))
            }
        };
        // Until the first is pending there is no timer, and a delay that no instant can end is none.
        let second = delay.filter(|_| (self.again)(&request)).and_then(|delay| {
            let begun = timed.as_ref().map_or_else(clock::now, |timed| timed.begun);
            let due = begun.checked_add(delay)?;
            let in_time = request.deadline().is_none_or(|deadline| due < deadline);
            in_time.then(|| Second::new(self.source.clone(), request.clone(), due, Arc::clone(&self.shared)))
        });
        ResponseFuture::new(self.inner.call(request), second, timed)
    }
}

// By hand: a clone needs no `P: Clone`, all of it is shared.
impl<S: Clone, P> Clone for Hedge<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            source: self.source.clone(),
            shared: Arc::clone(&self.shared),
            again: Arc::clone(&self.again),
        }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Hedge<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge").field("inner", &self.inner).field("shared", &self.shared).finish_non_exhaustive()
    }
}
