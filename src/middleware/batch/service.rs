use std::fmt::Debug;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::PollSemaphore;
use tower_service::Service;
use tracing::Span;

use super::BatchError;
use super::dispatcher::dispatch;
use super::future::{Receiver, ResponseFuture, call_when_ready};
use super::layer::BatchLayer;
use super::policy::{BatchPolicy, SingleKey};
use super::queue::Queue;
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::panics::detached;
use crate::request::RequestContext;

/// The response to a batch: a `Vec` with one result for each request, in their order.
///
/// The error of a single request has the type of the inner service's error.
pub trait BatchResponse: sealed::Sealed {
    /// The response to one request.
    type Response;
    /// The error of one request.
    type Error;

    #[doc(hidden)]
    fn into_vec(self) -> Vec<Result<Self::Response, Self::Error>>;
}

impl<T, E> BatchResponse for Vec<Result<T, E>> {
    type Response = T;
    type Error = E;

    fn into_vec(self) -> Vec<Result<T, E>> {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T, E> Sealed for Vec<Result<T, E>> {}
}

/// A service of batches: any `Service<Vec<R>>` whose response is a `Vec` with a result for each request.
pub trait BatchService<R>: Service<Vec<R>, Response: BatchResponse<Error = <Self as Service<Vec<R>>>::Error>> {}

impl<S, R> BatchService<R> for S where S: Service<Vec<R>, Response: BatchResponse<Error = S::Error>> {}

pub(super) type Response<S, R> = <<S as Service<Vec<R>>>::Response as BatchResponse>::Response;
pub(super) type Sender<T, E> = oneshot::Sender<Result<T, BatchError<E>>>;
pub(super) type QueueOf<S, R, K> = Queue<K, PendingRequest<R, Response<S, R>, <S as Service<Vec<R>>>::Error>>;

/// A request that waits in a batch.
pub(super) struct PendingRequest<R, T, E> {
    pub(super) request: R,
    pub(super) sender: Sender<T, E>,
    /// The caller's span.
    pub(super) span: Span,
    /// Held until the batch is sent.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Merges requests into calls of a service of batches. See the [module](super).
pub struct Batch<S, R, P = SingleKey>
where
    S: BatchService<R>,
    P: BatchPolicy<R>,
{
    inner: S,
    policy: Arc<P>,
    /// Shared by the clones of a service, their futures and the tasks.
    queue: Arc<QueueOf<S, R, P::Key>>,
    acquire: PollSemaphore,
    /// Reserved by `poll_ready`.
    permit: Option<OwnedSemaphorePermit>,
    /// Whether `inner` is ready, which is polled only while no batch waits.
    is_ready: bool,
}

impl<S, R, P> Batch<S, R, P>
where
    S: BatchService<R>,
    P: BatchPolicy<R>,
{
    /// Merges requests into calls of `inner`, with the settings of `layer`.
    pub fn new(inner: S, layer: &BatchLayer<R, P>) -> Self {
        Self {
            inner,
            policy: Arc::clone(&layer.policy),
            queue: Arc::new(Queue::new(layer.limits, Arc::clone(&layer.totals))),
            acquire: PollSemaphore::new(Arc::clone(&layer.permits)),
            permit: None,
            is_ready: false,
        }
    }

    /// Returns the number of calls in flight, without those of requests that share none, and of batches that wait.
    pub fn level(&self) -> (usize, usize) {
        self.queue.level()
    }
}

impl<S, R, P> Service<R> for Batch<S, R, P>
where
    S: BatchService<R> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Response<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    P: BatchPolicy<R>,
    P::Key: Send + Sync + 'static,
{
    type Response = Response<S, R>;
    type Error = BatchError<S::Error>;
    type Future = ResponseFuture<S::Future, R, Self::Response, S::Error, P::Key>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.permit.is_none() {
            // `None` if the semaphore is closed, which it never is.
            let permit = ready!(self.acquire.poll_acquire(cx)).ok_or(BatchError::Stopped)?;
            self.permit = Some(permit);
        }
        // While batches wait, the dispatcher waits for the inner service.
        if !self.is_ready && self.queue.is_empty() {
            match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => self.is_ready = true,
                Poll::Ready(Err(error)) => {
                    self.permit = None;
                    return Poll::Ready(Err(BatchError::Inner(error)));
                }
                // The request will wait here, and not in the queue of the inner service.
                Poll::Pending => self.inner = self.inner.clone(),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// # Panics
    /// If `poll_ready` has not returned `Ready(Ok)`.
    fn call(&mut self, mut request: R) -> Self::Future {
        let permit = self.permit.take().expect("`call` without `poll_ready` having returned `Ready(Ok)`");
        let is_ready = mem::take(&mut self.is_ready);
        let key = self.policy.key(&mut request);
        let weighted = key.map(|key| (self.policy.weight(&key, &request), key));
        let Some((weight, key)) = weighted.filter(|(weight, _)| *weight <= self.queue.limits.weight) else {
            return if is_ready {
                ResponseFuture::called(self.inner.call(vec![request]), None)
            } else {
                ResponseFuture::for_readiness(call_when_ready(self.inner.clone(), request, permit))
            };
        };
        let max_in_flight = self.policy.max_in_flight(&key);
        if is_ready {
            // Created before the call, so that the key is free again if the call panics.
            if let Some(in_flight) = self.queue.try_call(&key, max_in_flight) {
                return ResponseFuture::called(self.inner.call(vec![request]), Some(in_flight));
            }
            // Releases what the inner service has reserved, for a batch.
            self.inner = self.inner.clone();
        }
        let (sender, result) = oneshot::channel();
        let pending = PendingRequest { request, sender, span: Span::current(), permit };
        let (batch, start_dispatcher) = self.queue.push(key, max_in_flight, weight, clock::now(), pending);
        if start_dispatcher {
            let dispatcher = dispatch(self.inner.clone(), Arc::clone(&self.queue));
            // Without a runtime, or while it shuts down, the task is dropped and all that wait fail.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(detached("the dispatcher of the batch layer", dispatcher));
            }
        }
        ResponseFuture::for_batch(Receiver { result, batch })
    }
}

inner_service!(Batch::<S, R, P> { inner } where S: BatchService<R>, P: BatchPolicy<R>);
clone_service!(
    Batch::<S, R, P> { inner, policy, queue, acquire, permit: None, is_ready: false }
    where S: BatchService<R>, P: BatchPolicy<R>
);
derive_debug!(Batch::<S, R, P> { inner, queue } where S: BatchService<R> + Debug, P: BatchPolicy<R>);

/// Whether the deadline of a request has passed.
pub(super) fn is_late<R: RequestContext>(request: &R, now: Instant) -> bool {
    request.deadline().is_some_and(|deadline| deadline <= now)
}
