//! The tasks: one that sends batches while any wait, and one for each batch that runs.

use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use scopeguard::ScopeGuard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tower_service::Service;
use tracing::{Instrument, Span};

use super::BatchError;
use super::layer::BatchSnapshot;
use super::queue::{InFlight, Next, Queue};
use super::service::{BatchResponse, BatchService, PendingRequest, QueueOf, Response, Sender, is_late};
use crate::middleware::clock;
use crate::middleware::lazy_timer::LazyTimer;
use crate::panics::detached;
use crate::request::RequestContext;
use crate::sync::Mutex;

/// Returns a task that sends batches until none waits. Each batch runs in a task of its own, so that several run at a time if
/// the inner service is ready for several.
///
/// If it ends early, by a panic or with its runtime, all waiting requests are dropped: their callers then fail with
/// [`BatchError::Stopped`], and the next request starts another dispatcher.
pub(super) fn dispatch<S, R, K>(mut service: S, queue: Arc<QueueOf<S, R, K>>) -> impl Future<Output = ()> + Send
where
    S: BatchService<R> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Response<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let queue = scopeguard::guard(queue, |queue| drop(queue.drain()));
    async move {
        loop {
            consume_budget().await;
            let next = queue.next(clock::read);
            if next == Next::End {
                break;
            }
            match wait(&mut service, &queue, next).await {
                None => continue,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    let senders = queue.drain().into_iter().map(|request| request.sender);
                    respond::<S::Response>(senders, Err(error));
                    break;
                }
            }
            // Batches go on filling until the inner service is ready.
            let batch = queue.take(clock::read);
            let batch = batch.and_then(|(in_flight, members)| Some((collect(members, &queue.totals)?, in_flight)));
            let Some(((requests, senders, span), in_flight)) = batch else {
                // Its requests are cancelled or late: others may use what the service has reserved.
                service = service.clone();
                continue;
            };
            let inner = span.in_scope(|| service.call(requests));
            let run = run_batch(inner, senders, in_flight);
            tokio::spawn(detached("a batch of the batch layer", run).instrument(span));
        }
        ScopeGuard::into_inner(queue);
    }
}

/// Waits until the service is ready, if a batch is to be sent. `None` if something else is to be done first.
async fn wait<S, R, K, M>(service: &mut S, queue: &Queue<K, M>, next: Next) -> Option<Result<(), S::Error>>
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
fn collect<R, T, E>(members: Vec<PendingRequest<R, T, E>>, totals: &Mutex<BatchSnapshot>) -> Option<Batch<R, T, E>>
where
    R: RequestContext,
{
    let (mut requests, mut senders) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    let now = clock::read();
    let mut first_span = Span::none();
    let (mut expired, mut cancelled) = (0, 0);
    let mut permits: Option<OwnedSemaphorePermit> = None;
    for PendingRequest { request, sender, span, permit } in members {
        // Released together, which takes the semaphore's lock once.
        match &mut permits {
            Some(permits) => permits.merge(permit),
            None => permits = Some(permit),
        }
        if sender.is_closed() {
            cancelled += 1;
        } else if is_late(&request, now) {
            expired += 1;
            // A caller that is gone needs no error.
            let _ = sender.send(Err(BatchError::Expired));
        } else {
            if requests.is_empty() {
                first_span = span;
            }
            requests.push(request);
            senders.push(sender);
        }
    }
    drop(permits);
    let mut totals = totals.lock();
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
async fn run_batch<F, R, A, K>(
    inner: F,
    mut senders: Vec<Sender<A::Response, A::Error>>,
    in_flight: InFlight<K, PendingRequest<R, A::Response, A::Error>>,
) where
    F: Future<Output = Result<A, A::Error>>,
    A: BatchResponse,
    K: Hash + Eq + Clone,
{
    let result = {
        let mut inner = pin!(inner);
        // Waits for the first live caller only, and then for the next.
        let mut abandoned = pin!(async {
            for sender in &mut senders {
                sender.closed().await;
            }
        });
        poll_fn(|cx| match abandoned.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => inner.as_mut().poll(cx).map(Some),
        })
        .await
    };
    // First, so that the next batch can be sent meanwhile.
    drop(in_flight);
    if let Some(result) = result {
        respond(senders, result);
    }
}

/// Sends the responses, or the error of a whole batch to all. Callers that are gone need none.
fn respond<A: BatchResponse>(
    senders: impl IntoIterator<Item = Sender<A::Response, A::Error>>,
    result: Result<A, A::Error>,
) {
    let mut result = result.map(|response| response.into_vec().into_iter()).map_err(Arc::new);
    for sender in senders {
        let _ = sender.send(match &mut result {
            Ok(results) => match results.next() {
                Some(result) => result.map_err(BatchError::Inner),
                None => Err(BatchError::MissingResponse),
            },
            Err(error) => Err(BatchError::Shared(Arc::clone(error))),
        });
    }
}
