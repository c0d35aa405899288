//! The tasks: one that sends batches while any wait, and one for each batch that runs.

use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tower_service::Service;
use tracing::{Instrument, Span};

use super::BatchError;
use super::future::InFlight;
use super::queue::Next;
use super::service::{BatchResponse, BatchService, Error, PendingRequest, Response, Sender, Shared, is_late};
use crate::middleware::clock;
use crate::middleware::lazy_timer::LazyTimer;
use crate::panics::detached;
use crate::request::RequestContext;

/// Drops all waiting requests if the dispatcher ends early, by a panic or with its runtime: their callers then fail with
/// [`BatchError::Stopped`], and the next request starts another dispatcher.
pub(super) struct DispatcherGuard<R, T, E, K: Hash + Eq + Clone> {
    shared: Arc<Shared<R, T, E, K>>,
    is_done: bool,
}

impl<R, T, E, K: Hash + Eq + Clone> DispatcherGuard<R, T, E, K> {
    pub(super) fn new(shared: Arc<Shared<R, T, E, K>>) -> Self {
        Self { shared, is_done: false }
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for DispatcherGuard<R, T, E, K> {
    fn drop(&mut self) {
        if !self.is_done {
            drop(self.shared.queue.drain());
        }
    }
}

/// Sends batches until none waits. Each batch runs in a task of its own, so that several run at a time if the inner service is
/// ready for several.
pub(super) async fn dispatch<S, R, K>(mut service: S, mut guard: DispatcherGuard<R, Response<S, R>, Error<S, R>, K>)
where
    S: BatchService<R> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Response<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let shared = Arc::clone(&guard.shared);
    let queue = &shared.queue;
    let mut is_ready = false;
    loop {
        let next = queue.next(clock::read);
        match next {
            Next::End => {
                guard.is_done = true;
                return;
            }
            Next::Send => {}
            Next::NotBefore(_) | Next::Blocked => {
                if mem::take(&mut is_ready) {
                    // The batch that it was for has been cancelled: others may use what it has reserved.
                    service = service.clone();
                }
            }
        }
        if !is_ready {
            match wait(&mut service, queue, next).await {
                Some(Ok(())) => is_ready = true,
                Some(Err(error)) => {
                    guard.is_done = true;
                    let error = Arc::new(error);
                    for request in queue.drain() {
                        // A caller that is gone needs no error.
                        let _ = request.sender.send(Err(BatchError::Shared(Arc::clone(&error))));
                    }
                    return;
                }
                None => {}
            }
        }
        // Batches go on filling until the inner service is ready.
        if is_ready && let Some((key, group)) = queue.take(clock::read) {
            let in_flight = InFlight { key, shared: Arc::clone(&shared) };
            if let Some((requests, senders, span)) = collect(group.members, &shared) {
                is_ready = false;
                let inner = span.in_scope(|| service.call(requests));
                let run = RunBatch { inner, senders, closed: 0, in_flight: Some(in_flight) };
                tokio::spawn(detached("a batch of the batch layer", run).instrument(span));
            }
        }
        consume_budget().await;
    }
}

/// Waits until the service is ready, if a batch is to be sent. `None` if something else is to be done first.
async fn wait<S, R, K, M>(
    service: &mut S,
    queue: &super::queue::Queue<K, M>,
    next: Next,
) -> Option<Result<(), S::Error>>
where
    S: Service<Vec<R>>,
{
    let mut changed = pin!(queue.changed.notified());
    let mut timer = pin!(LazyTimer::new(match next {
        Next::NotBefore(time) => Some(time),
        _ => None,
    }));
    poll_fn(|cx| {
        if next == Next::Send
            && let Poll::Ready(ready) = service.poll_ready(cx)
        {
            return Poll::Ready(Some(ready));
        }
        if changed.as_mut().poll(cx).is_ready() || timer.as_mut().poll_elapsed(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// The requests of a batch, their senders, and the span to run it in.
type Batch<R, T, E> = (Vec<R>, Vec<Sender<T, E>>, Span);

/// Collects the requests that are neither cancelled nor late. `None` if there are none.
fn collect<R, T, E, K>(members: Vec<PendingRequest<R, T, E>>, shared: &Shared<R, T, E, K>) -> Option<Batch<R, T, E>>
where
    R: RequestContext,
    K: Hash + Eq + Clone,
{
    let (mut requests, mut senders) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    let now = clock::read();
    let mut permits: Option<OwnedSemaphorePermit> = None;
    let mut first_span = Span::none();
    let (mut expired, mut cancelled) = (0, 0);
    for PendingRequest { request, sender, permit, span } in members {
        // Merged, so that the semaphore is locked once.
        match &mut permits {
            Some(permits) => permits.merge(permit),
            None => permits = Some(permit),
        }
        if sender.is_closed() {
            cancelled += 1;
        } else if is_late(&request, now) {
            match sender.send(Err(BatchError::Expired)) {
                Ok(()) => expired += 1,
                Err(_) => cancelled += 1,
            }
        } else {
            if requests.is_empty() {
                first_span = span;
            }
            requests.push(request);
            senders.push(sender);
        }
    }
    let mut totals = shared.counts.totals.lock();
    totals.expired += expired;
    totals.cancelled += cancelled;
    if requests.is_empty() {
        return None;
    }
    totals.batches += 1;
    totals.requests += requests.len() as u64;
    drop(totals);
    // Within the span of the first request, as a span has one parent.
    let span = if first_span.is_disabled() {
        Span::none()
    } else {
        tracing::error_span!(parent: &first_span, "batch", requests = requests.len())
    };
    Some((requests, senders, span))
}

/// Runs a batch, and sends each response to its caller. The inner future is dropped once all callers are gone.
#[pin_project]
struct RunBatch<F, R, T, E, K: Hash + Eq + Clone> {
    #[pin]
    inner: F,
    senders: Vec<Sender<T, E>>,
    /// The number of senders from the first on whose callers are gone.
    closed: usize,
    in_flight: Option<InFlight<R, T, E, K>>,
}

impl<F, R, A, T, E, K> Future for RunBatch<F, R, T, E, K>
where
    F: Future<Output = Result<A, E>>,
    A: BatchResponse<Response = T, Error = E>,
    K: Hash + Eq + Clone,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Waits for the first live caller only, and then for the next.
        while let Some(sender) = this.senders.get_mut(*this.closed)
            && sender.poll_closed(cx).is_ready()
        {
            *this.closed += 1;
        }
        if *this.closed == this.senders.len() {
            return Poll::Ready(());
        }
        let result = ready!(this.inner.poll(cx));
        // First, so that the next batch can be sent meanwhile.
        *this.in_flight = None;
        respond(mem::take(this.senders), result);
        Poll::Ready(())
    }
}

/// Sends the responses, and the error of a whole batch to all. Callers that are gone need none.
fn respond<A: BatchResponse>(senders: Vec<Sender<A::Response, A::Error>>, result: Result<A, A::Error>) {
    match result {
        Ok(response) => {
            let mut results = response.into_vec().into_iter();
            for sender in senders {
                let result = results.next().map(|result| result.map_err(BatchError::Inner));
                let _ = sender.send(result.unwrap_or(Err(BatchError::MissingResponse)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for sender in senders {
                let _ = sender.send(Err(BatchError::Shared(Arc::clone(&error))));
            }
        }
    }
}
