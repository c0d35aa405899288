use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::BatchError;
use super::queue::{BatchId, InFlight};
use super::service::{BatchResponse, BatchService, PendingRequest, Response, is_late};
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;
use crate::request::RequestContext;

/// Response future of [`Batch`](super::Batch).
#[pin_project]
pub struct ResponseFuture<F, R, T, E, K: Hash + Eq + Clone> {
    #[pin]
    state: State<F, R, T, E, K>,
}

#[pin_project(project = StateProj)]
enum State<F, R, T, E, K: Hash + Eq + Clone> {
    /// Called by itself.
    Called {
        #[pin]
        inner: F,
        in_flight: Option<InFlight<K, PendingRequest<R, T, E>>>,
    },
    /// Waits to be called by itself. Boxed, as it is rare and larger than the rest.
    ForReadiness { call: BoxedResult<T, E> },
    /// Waits for the response of a batch.
    ForBatch { receiver: Receiver<R, T, E, K> },
}

type BoxedResult<T, E> = Pin<Box<dyn Future<Output = Result<T, BatchError<E>>> + Send>>;

impl<F, R, T, E, K: Hash + Eq + Clone> ResponseFuture<F, R, T, E, K> {
    /// `in_flight` is held until the call has ended.
    pub(super) fn called(inner: F, in_flight: Option<InFlight<K, PendingRequest<R, T, E>>>) -> Self {
        Self { state: State::Called { inner, in_flight } }
    }

    pub(super) fn for_readiness(call: impl Future<Output = Result<T, BatchError<E>>> + Send + 'static) -> Self {
        Self { state: State::ForReadiness { call: Box::pin(call) } }
    }

    pub(super) fn for_batch(receiver: Receiver<R, T, E, K>) -> Self {
        Self { state: State::ForBatch { receiver } }
    }
}

impl<F, A, R, K> Future for ResponseFuture<F, R, A::Response, A::Error, K>
where
    F: Future<Output = Result<A, A::Error>>,
    A: BatchResponse,
    K: Hash + Eq + Clone,
{
    type Output = Result<A::Response, BatchError<A::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner, in_flight } => {
                let result = ready!(inner.poll(cx));
                // The key is free when the call has ended, before this future is dropped.
                *in_flight = None;
                Poll::Ready(single_result(result))
            }
            StateProj::ForReadiness { call } => call.as_mut().poll(cx),
            StateProj::ForBatch { receiver } => receiver.poll(cx),
        }
    }
}

/// Calls `service` with a batch of one, once it is ready.
pub(super) async fn call_when_ready<S, R>(
    mut service: S,
    request: R,
    permit: OwnedSemaphorePermit,
) -> Result<Response<S, R>, BatchError<S::Error>>
where
    S: BatchService<R>,
    R: RequestContext,
{
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(BatchError::Inner)?;
    drop(permit);
    if is_late(&request, clock::read()) {
        return Err(BatchError::Expired);
    }
    let inner = service.call(vec![request]);
    drop(service);
    single_result(inner.await)
}

/// The result of a batch of one.
fn single_result<A: BatchResponse>(result: Result<A, A::Error>) -> Result<A::Response, BatchError<A::Error>> {
    let response = result.map_err(BatchError::Inner)?;
    let result = response.into_vec().into_iter().next().ok_or(BatchError::MissingResponse)?;
    result.map_err(BatchError::Inner)
}

/// Receives the response to a request in a batch. Dropping it cancels the request.
pub(super) struct Receiver<R, T, E, K: Hash + Eq + Clone> {
    pub(super) result: oneshot::Receiver<Result<T, BatchError<E>>>,
    pub(super) batch: Arc<BatchId<K, PendingRequest<R, T, E>>>,
}

impl<R, T, E, K: Hash + Eq + Clone> Receiver<R, T, E, K> {
    /// The task that would send a response may be gone: then it fails at each poll.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, BatchError<E>>> {
        if self.result.is_terminated() {
            return Poll::Ready(Err(BatchError::Stopped));
        }
        Pin::new(&mut self.result).poll(cx).map(|result| result.unwrap_or(Err(BatchError::Stopped)))
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for Receiver<R, T, E, K> {
    fn drop(&mut self) {
        if !self.result.is_terminated() {
            // First, so that the queue finds the request cancelled.
            self.result.close();
            self.batch.cancel(|request| request.sender.is_closed());
        }
    }
}

derive_debug!(ResponseFuture::<F, R, T, E, K> {} where K: Hash + Eq + Clone);
