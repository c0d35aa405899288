use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::{has_budget_remaining, unconstrained};
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

use super::queue::Queue;
use super::worker::{self, WorkerGuard};
use super::{PriorityQueueError, ResponseFuture};
use crate::middleware::clock;
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
        let poll_inner = match self.readiness {
            Readiness::QueuePermit(_) => return Poll::Ready(Ok(())),
            // A service that is queued by the inner one came before the calls that wait here.
            Readiness::InnerPending | Readiness::InnerReady => true,
            Readiness::Nothing => self.queue.is_empty(),
        };
        if poll_inner {
            match poll_ready_outside_budget(&mut self.inner, cx) {
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
            }
        }
        self.poll_queue_permit(cx).map(Ok)
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
        match self.queue.push(&request, permit, clock::now()) {
            Ok((receiver, start_worker)) => {
                if start_worker {
                    let worker = worker::run::<S, R>(WorkerGuard::new(Arc::clone(&self.queue)), self.inner.clone());
                    tokio::spawn(detached("the worker of the priority queue", worker));
                }
                ResponseFuture::waiting(request, receiver)
            }
            Err(rejection) => ResponseFuture::rejected(rejection),
        }
    }
}

/// Polls readiness, again without Tokio's cooperative budget if that is used up: else a service with free capacity would be
/// taken for a full one, and a burst of calls from one task would fill the queue.
fn poll_ready_outside_budget<S: Service<R>, R>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
    let polled = service.poll_ready(cx);
    if polled.is_pending() && !has_budget_remaining() {
        return pin!(unconstrained(poll_fn(|cx| service.poll_ready(cx)))).poll(cx);
    }
    polled
}

impl<S: Clone> PriorityQueue<S> {
    /// Reserves a permit for the queue.
    fn poll_queue_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let semaphore = &self.queue.capacity.permits;
        // Without the task's budget if a permit is free.
        let permit = match Arc::clone(semaphore).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let acquire = self.acquire.get_or_insert_with(|| PollSemaphore::new(Arc::clone(semaphore)));
                ready!(acquire.poll_acquire(cx)).expect("the semaphore is never closed")
            }
        };
        self.acquire = None;
        if let Readiness::InnerPending = self.readiness {
            // The worker polls the inner service for the waiting calls. A service that stayed queued there could be given
            // capacity that no call uses.
            self.inner = self.inner.clone();
        }
        self.readiness = Readiness::QueuePermit(permit);
        Poll::Ready(())
    }
}
