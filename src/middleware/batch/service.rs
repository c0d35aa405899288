use std::fmt;
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
use super::dispatcher::{DispatcherGuard, dispatch};
use super::future::{InFlight, Receiver, ResponseFuture};
use super::layer::{BatchLayer, Counts};
use super::policy::{BatchPolicy, SingleKey};
use super::queue::Queue;
use crate::middleware::clock;
use crate::middleware::inner_service::{clone_service, forward_to_inner};
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
pub(super) type Error<S, R> = <S as Service<Vec<R>>>::Error;
pub(super) type Sender<T, E> = oneshot::Sender<Result<T, BatchError<E>>>;
type SharedOf<S, R, P> = Shared<R, Response<S, R>, Error<S, R>, <P as BatchPolicy<R>>::Key>;

/// A request that waits in a batch.
pub(super) struct PendingRequest<R, T, E> {
    pub(super) request: R,
    pub(super) sender: Sender<T, E>,
    /// Held until the batch is sent.
    pub(super) permit: OwnedSemaphorePermit,
    /// The caller's span.
    pub(super) span: Span,
}

/// Shared by the clones of a service, their futures and the tasks.
pub(super) struct Shared<R, T, E, K> {
    pub(super) queue: Queue<K, PendingRequest<R, T, E>>,
    pub(super) counts: Arc<Counts>,
}

/// Merges requests into calls of a service of batches. See the [module](super).
pub struct Batch<S, R, P = SingleKey>
where
    S: BatchService<R>,
    P: BatchPolicy<R>,
{
    inner: S,
    policy: Arc<P>,
    shared: Arc<SharedOf<S, R, P>>,
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
        let shared = Shared { queue: Queue::new(layer.limits), counts: Arc::clone(&layer.counts) };
        Self {
            inner,
            policy: Arc::clone(&layer.policy),
            shared: Arc::new(shared),
            acquire: PollSemaphore::new(Arc::clone(&layer.counts.permits)),
            permit: None,
            is_ready: false,
        }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the number of calls in flight, without those of requests that share none, and of batches that wait.
    pub fn level(&self) -> (usize, usize) {
        self.shared.queue.level()
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
    type Future = ResponseFuture<S, R, P::Key>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.permit.is_none() {
            // `None` if the semaphore is closed, which it never is.
            let permit = ready!(self.acquire.poll_acquire(cx)).ok_or(BatchError::Stopped)?;
            self.permit = Some(permit);
        }
        // While batches wait, the dispatcher waits for the inner service.
        if !self.is_ready && self.shared.queue.is_empty() {
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
        let Some((weight, key)) = weighted.filter(|(weight, _)| *weight <= self.shared.queue.limits().weight) else {
            return if is_ready {
                ResponseFuture::called(self.inner.call(vec![request]), None)
            } else {
                ResponseFuture::single(self.inner.clone(), request, permit)
            };
        };
        let shared = &self.shared;
        let max_in_flight = self.policy.max_in_flight(&key);
        if is_ready && shared.queue.try_call(&key, max_in_flight) {
            // Created first, so that the key is free again if the call panics.
            let in_flight = InFlight { key, shared: Arc::clone(shared) };
            return ResponseFuture::called(self.inner.call(vec![request]), Some(in_flight));
        }
        if is_ready {
            // Releases what the inner service has reserved, for a batch.
            self.inner = self.inner.clone();
        }
        let (sender, result) = oneshot::channel();
        let pending = PendingRequest { request, sender, permit, span: Span::current() };
        let (batch, start_dispatcher) = shared.queue.push(key, max_in_flight, weight, clock::now(), pending);
        if start_dispatcher {
            let dispatcher = dispatch(self.inner.clone(), DispatcherGuard::new(Arc::clone(shared)));
            // Without a runtime, or while it shuts down, the guard is dropped and fails all that wait.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(detached("the dispatcher of the batch layer", dispatcher));
            }
        }
        ResponseFuture::batched(Receiver { result, is_complete: false, batch, shared: Arc::clone(shared) })
    }
}

clone_service!(
    Batch::<S, R, P> { inner, policy, shared, acquire, permit: None, is_ready: false }
    where S: BatchService<R>, P: BatchPolicy<R>
);
forward_to_inner!(
    Batch::<S, R, P> { inner } where S: BatchService<R>, P: BatchPolicy<R>
);

impl<S, R, P> fmt::Debug for Batch<S, R, P>
where
    S: BatchService<R> + fmt::Debug,
    P: BatchPolicy<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("inner", &self.inner)
            .field("limits", self.shared.queue.limits())
            .field("level", &self.level())
            .field("is_ready", &self.permit.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether the deadline of a request has passed.
pub(super) fn is_late<R: RequestContext>(request: &R, now: Instant) -> bool {
    request.deadline().is_some_and(|deadline| deadline <= now)
}
