use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::BatchError;
use super::queue::BatchId;
use super::service::{BatchResponse, BatchService, Error, Response, Shared, is_late};
use crate::middleware::clock;
use crate::request::RequestContext;

/// Response future of [`Batch`](super::Batch).
#[pin_project]
pub struct ResponseFuture<S, R, K>
where
    S: BatchService<R>,
    K: Hash + Eq + Clone,
{
    #[pin]
    state: State<S, R, K>,
}

type InFlightOf<S, R, K> = InFlight<R, Response<S, R>, Error<S, R>, K>;
type ReceiverOf<S, R, K> = Receiver<R, Response<S, R>, Error<S, R>, K>;

#[pin_project(project = StateProj)]
enum State<S, R, K>
where
    S: BatchService<R>,
    K: Hash + Eq + Clone,
{
    /// Called by itself.
    Called {
        #[pin]
        inner: S::Future,
        in_flight: Option<InFlightOf<S, R, K>>,
    },
    /// Waits to be called by itself. Boxed, as it is rare and larger than the rest.
    ForReadiness(Option<Box<(S, R, OwnedSemaphorePermit)>>),
    /// Waits for the response of a batch.
    ForBatch(ReceiverOf<S, R, K>),
    /// Each further poll returns the same error.
    Stopped,
}

impl<S, R, K> ResponseFuture<S, R, K>
where
    S: BatchService<R>,
    K: Hash + Eq + Clone,
{
    pub(super) fn called(inner: S::Future, in_flight: Option<InFlightOf<S, R, K>>) -> Self {
        Self { state: State::Called { inner, in_flight } }
    }

    pub(super) fn single(service: S, request: R, permit: OwnedSemaphorePermit) -> Self {
        Self { state: State::ForReadiness(Some(Box::new((service, request, permit)))) }
    }

    pub(super) fn batched(receiver: ReceiverOf<S, R, K>) -> Self {
        Self { state: State::ForBatch(receiver) }
    }
}

const COMPLETED: &str = "polled after completion";

impl<S, R, K> Future for ResponseFuture<S, R, K>
where
    S: BatchService<R>,
    R: RequestContext,
    K: Hash + Eq + Clone,
{
    type Output = Result<Response<S, R>, BatchError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Called { inner, in_flight } => {
                    let result = ready!(inner.poll(cx));
                    // The key is free when the call has ended, before this future is dropped.
                    *in_flight = None;
                    return Poll::Ready(single_result(result));
                }
                StateProj::ForReadiness(call) => {
                    ready!(call.as_mut().expect(COMPLETED).0.poll_ready(cx)).map_err(BatchError::Inner)?;
                    let (mut service, request, permit) = *call.take().expect(COMPLETED);
                    drop(permit);
                    if is_late(&request, clock::read()) {
                        return Poll::Ready(Err(BatchError::Expired));
                    }
                    State::Called { inner: service.call(vec![request]), in_flight: None }
                }
                StateProj::ForBatch(receiver) => match ready!(receiver.poll(cx)) {
                    Some(result) => return Poll::Ready(result),
                    None => State::Stopped,
                },
                StateProj::Stopped => return Poll::Ready(Err(BatchError::Stopped)),
            };
            state.set(next);
        }
    }
}

/// The result of a batch of one.
fn single_result<A: BatchResponse>(result: Result<A, A::Error>) -> Result<A::Response, BatchError<A::Error>> {
    let response = result.map_err(BatchError::Inner)?;
    let result = response.into_vec().into_iter().next().ok_or(BatchError::MissingResponse)?;
    result.map_err(BatchError::Inner)
}

/// A call in flight of a key, until it is dropped.
pub(super) struct InFlight<R, T, E, K: Hash + Eq + Clone> {
    pub(super) key: K,
    pub(super) shared: Arc<Shared<R, T, E, K>>,
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for InFlight<R, T, E, K> {
    fn drop(&mut self) {
        self.shared.queue.done(&self.key);
    }
}

/// Receives the response to a request in a batch. Dropping it cancels the request.
pub(super) struct Receiver<R, T, E, K: Hash + Eq + Clone> {
    pub(super) result: oneshot::Receiver<Result<T, BatchError<E>>>,
    pub(super) is_complete: bool,
    pub(super) batch: BatchId<K>,
    pub(super) shared: Arc<Shared<R, T, E, K>>,
}

impl<R, T, E, K: Hash + Eq + Clone> Receiver<R, T, E, K> {
    /// `None` if the task that would send a response is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, BatchError<E>>>> {
        let result = ready!(Pin::new(&mut self.result).poll(cx));
        self.is_complete = true;
        Poll::Ready(result.ok())
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for Receiver<R, T, E, K> {
    fn drop(&mut self) {
        if !self.is_complete {
            // First, so that the queue finds the request cancelled.
            self.result.close();
            let cancelled = self.shared.queue.cancel(&self.batch, |request| request.sender.is_closed());
            self.shared.counts.totals.lock().cancelled += cancelled as u64;
        }
    }
}

impl<S, R, K> fmt::Debug for ResponseFuture<S, R, K>
where
    S: BatchService<R>,
    K: Hash + Eq + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Called { .. } => "called",
            State::ForReadiness(_) => "waiting for readiness",
            State::ForBatch(_) => "in a batch",
            State::Stopped => "stopped",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
