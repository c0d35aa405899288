use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::Kept;
use super::layer::Shared;
use super::{Choose, FallbackError, ResponseFuture};
use crate::error::{AnyError, ErrorKinds};
use crate::middleware::clone_source::CloneSource;
use crate::middleware::inner_service::inner_service;
use crate::request::RequestContext;

/// Has another service answer what one cannot. See the [module](super).
pub struct Fallback<S: Service<R>, F, R, C = ErrorKinds> {
    primary: S,
    fallback: CloneSource<F>,
    shared: Arc<Shared<C>>,
    /// Why the primary service was not ready, where that is for the fallback to mend: the next call goes there.
    unready: Option<S::Error>,
}

impl<S: Service<R>, F, R, C> Fallback<S, F, R, C> {
    pub(super) fn new(primary: S, fallback: CloneSource<F>, shared: Arc<Shared<C>>) -> Self {
        Self { primary, fallback, shared, unready: None }
    }
}

inner_service!(Fallback::<S, F, R, C> { primary } where S: Service<R>);

impl<S, F, R, C> Service<R> for Fallback<S, F, R, C>
where
    S: Service<R, Error: AnyError>,
    F: Service<R, Response = S::Response> + Clone,
    C: Choose<R, S::Error>,
    R: RequestContext + Clone,
{
    type Response = S::Response;
    type Error = FallbackError<S::Error, F::Error>;
    type Future = ResponseFuture<S, F, R, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.unready.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.primary.poll_ready(cx) {
            Poll::Ready(Err(error)) if self.shared.choice.is_reason(&error) => {
                self.unready = Some(error);
                Poll::Ready(Ok(()))
            }
            other => other.map_err(FallbackError::Primary),
        }
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let may_run = self.shared.choice.may_run(&request);
        let keep = |request| Kept::new(self.fallback.clone(), request, Arc::clone(&self.shared));
        match self.unready.take() {
            None => {
                let kept = may_run.then(|| keep(request.clone()));
                ResponseFuture::called(self.primary.call(request), kept)
            }
            Some(error) => ResponseFuture::unready(error, may_run.then(|| keep(request))),
        }
    }
}

// By hand: what one service knows of its readiness is its alone.
impl<S: Service<R> + Clone, F, R, C> Clone for Fallback<S, F, R, C> {
    fn clone(&self) -> Self {
        Self::new(self.primary.clone(), self.fallback.clone(), Arc::clone(&self.shared))
    }
}

impl<S: Service<R> + fmt::Debug, F, R, C> fmt::Debug for Fallback<S, F, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("primary", &self.primary)
            .field("counts", &self.shared.counts)
            .finish_non_exhaustive()
    }
}
