use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

use super::queue::Queue;
use super::worker::work;
use super::{PriorityQueueError, ResponseFuture};
use crate::middleware::call_when_ready::poll_ready_without_budget;
use crate::middleware::inner_service::{clone_service, inner_service};
use crate::panics::detached;
use crate::request::{RequestContext, ResponseContext};

/// Queues calls by tenant, priority and deadline while the inner service is not ready. See the [module](super).
#[derive(Debug)]
pub struct PriorityQueue<S> {
    inner: S,
    queue: Arc<Queue<S>>,
    readiness: Readiness,
    /// Only while waiting for a permit.
    acquire: Option<PollSemaphore>,
}

/// What `poll_ready` has reserved for the next call.
#[derive(Debug)]
enum Readiness {
    Nothing,
    /// The inner service is pending: it may have queued this service.
    InnerPending,
    InnerReady,
    QueuePermit(OwnedSemaphorePermit),
}

impl<S> PriorityQueue<S> {
    pub(super) fn new(inner: S, queue: Arc<Queue<S>>) -> Self {
        Self { inner, queue, readiness: Readiness::Nothing, acquire: None }
    }
}

inner_service!(PriorityQueue::<S> { inner });
clone_service!(PriorityQueue::<S> { inner, queue, readiness: Readiness::Nothing, acquire: None });

impl<S, R> Service<R> for PriorityQueue<S>
where
    S: Service<R, Response: ResponseContext> + Clone + Send + 'static,
    R: RequestContext + 'static,
{
    type Response = S::Response;
    type Error = PriorityQueueError<S::Error>;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self.readiness {
            Readiness::QueuePermit(_) => return Poll::Ready(Ok(())),
            // The calls that wait come first.
            Readiness::Nothing if !self.queue.is_empty() => {}
            // A service that is queued by the inner one came before the calls that wait here. The budget is ignored, as a
            // burst of calls from one task would use it up and then fill the queue.
            _ => match poll_ready_without_budget(&mut self.inner, cx) {
                Poll::Ready(Ok(())) => {
                    self.readiness = Readiness::InnerReady;
                    self.acquire = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.readiness = Readiness::Nothing;
                    return Poll::Ready(Err(PriorityQueueError::Inner(error)));
                }
                Poll::Pending => self.readiness = Readiness::InnerPending,
            },
        }
        let permits = &self.queue.shared.permits;
        let acquire = self.acquire.get_or_insert_with(|| PollSemaphore::new(Arc::clone(permits)));
        let permit = ready!(acquire.poll_acquire(cx)).expect("the semaphore is never closed");
        self.acquire = None;
        if let Readiness::InnerPending = self.readiness {
            // The worker polls the inner service for the waiting calls. A service that stayed queued there could be given
            // capacity that no call uses.
            self.inner = self.inner.clone();
        }
        self.readiness = Readiness::QueuePermit(permit);
        Poll::Ready(Ok(()))
    }

    /// # Panics
    /// If `poll_ready` has not returned `Ready(Ok)`, or if the call has to wait outside of a Tokio runtime.
    fn call(&mut self, request: R) -> Self::Future {
        let permit = match mem::replace(&mut self.readiness, Readiness::Nothing) {
            Readiness::InnerReady => return ResponseFuture::called(self.inner.call(request)),
            Readiness::QueuePermit(permit) => permit,
            Readiness::Nothing | Readiness::InnerPending => {
                panic!("`call` without `poll_ready` having returned `Ready(Ok)`")
            }
        };
        let (receiver, start_worker) = self.queue.push(&request, permit);
        if start_worker {
            let worker = work::<S, R>(Arc::clone(&self.queue), self.inner.clone());
            tokio::spawn(detached("the worker of the priority queue", worker));
        }
        ResponseFuture::waiting(request, receiver)
    }
}
