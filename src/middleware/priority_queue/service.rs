use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::{has_budget_remaining, unconstrained};
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

use super::line::{Line, Newcomer};
use super::order::By;
use super::worker::{Duty, serve};
use super::{PriorityQueueError, ResponseFuture};
use crate::middleware::clock;
use crate::middleware::inner_service::inner_service;
use crate::panics::detached;
use crate::request::limits::tenant_key;
use crate::request::{RequestContext, ResponseContext};

/// Has calls wait in the order in which they matter. See the [module](super).
pub struct PriorityQueue<S> {
    inner: S,
    line: Arc<Line<S>>,
    ready: Ready,
    /// Only while it waits for a place in the queue.
    places: Option<PollSemaphore>,
}

/// What the next call can count on.
enum Ready {
    Nothing,
    /// The inner service was not ready: it may have put this one in a line of its own.
    Asked,
    /// The inner service is ready.
    Inner,
    Place(OwnedSemaphorePermit),
}

impl<S> PriorityQueue<S> {
    pub(super) fn new(inner: S, line: Arc<Line<S>>) -> Self {
        Self { inner, line, ready: Ready::Nothing, places: None }
    }
}

inner_service!(PriorityQueue::<S> { inner });

impl<S, R> Service<R> for PriorityQueue<S>
where
    S: Service<R, Response: ResponseContext> + Clone + Send + 'static,
    R: RequestContext + 'static,
{
    type Response = S::Response;
    type Error = PriorityQueueError<S::Error>;
    type Future = ResponseFuture<S, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ask = match self.ready {
            Ready::Place(_) => return Poll::Ready(Ok(())),
            // Who stands in the inner service's line came before those who wait here.
            Ready::Asked | Ready::Inner => true,
            Ready::Nothing => self.line.is_empty(),
        };
        if ask {
            let mut polled = self.inner.poll_ready(cx);
            if polled.is_pending() && !has_budget_remaining() {
                polled = self.poll_inner_anew(cx);
            }
            match polled {
                Poll::Ready(Ok(())) => {
                    self.ready = Ready::Inner;
                    // It waits for no place any more.
                    if self.places.is_some() {
                        self.places = None;
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.ready = Ready::Nothing;
                    return Poll::Ready(Err(PriorityQueueError::Inner(error)));
                }
                Poll::Pending => self.ready = Ready::Asked,
            }
        }
        self.poll_place(cx).map(Ok)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        if let Ready::Inner = self.ready {
            self.ready = Ready::Nothing;
            return ResponseFuture::called(self.inner.call(request));
        }
        let ready = mem::replace(&mut self.ready, Ready::Nothing);
        self.enter(request, ready)
    }
}

impl<S: Clone> PriorityQueue<S> {
    /// Asks the inner service outside the task's budget. Without any left it would be taken for full, and a burst of calls
    /// from one task would fill the queue before a service that has room.
    #[inline(never)]
    fn poll_inner_anew<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<R>,
    {
        pin!(unconstrained(poll_fn(|cx| self.inner.poll_ready(cx)))).poll(cx)
    }

    /// Reserves a place in the queue.
    #[inline(never)]
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let semaphore = &self.line.room().places;
        // At once where there is one, whatever is left of the task's budget.
        let place = match Arc::clone(semaphore).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let places = self.places.get_or_insert_with(|| PollSemaphore::new(Arc::clone(semaphore)));
                ready!(places.poll_acquire(cx)).expect("the semaphore is never closed")
            }
        };
        self.places = None;
        // What waits in the queue is asked for by the queue's own task; a service that stood in the inner one's line
        // beside it could be given what nobody then takes.
        if let Ready::Asked = self.ready {
            self.inner = self.inner.clone();
        }
        self.ready = Ready::Place(place);
        Poll::Ready(())
    }

    #[inline(never)]
    fn enter<R>(&mut self, request: R, ready: Ready) -> ResponseFuture<S, R>
    where
        S: Service<R> + Send + 'static,
        R: RequestContext + 'static,
    {
        let Ready::Place(place) = ready else {
            panic!("`call` without `poll_ready` having answered `Ready(Ok)`");
        };
        let new = Newcomer {
            operation: request.operation(),
            priority: request.priority(),
            by: By { tenant: tenant_key(&request), share: request.share() },
            expected_time: request.expected_time(),
            deadline: request.deadline(),
            bytes: request.payload_bytes().unwrap_or(0),
            place,
        };
        match self.line.enter(new, clock::now()) {
            Ok((ticket, has_worker)) => {
                if !has_worker {
                    let duty = Duty::new(Arc::clone(&self.line));
                    let worker = serve::<S, R>(duty, self.inner.clone());
                    tokio::spawn(detached("the worker of the priority queue", worker));
                }
                ResponseFuture::in_line(request, ticket)
            }
            Err(refusal) => ResponseFuture::refused(refusal),
        }
    }
}

// By hand: what this one has reserved is its alone.
impl<S: Clone> Clone for PriorityQueue<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.line))
    }
}

impl<S: fmt::Debug> fmt::Debug for PriorityQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = match self.ready {
            Ready::Nothing | Ready::Asked => "no",
            Ready::Inner => "the inner service",
            Ready::Place(_) => "a place in the queue",
        };
        f.debug_struct("PriorityQueue")
            .field("inner", &self.inner)
            .field("line", &self.line)
            .field("ready", &ready)
            .finish_non_exhaustive()
    }
}
