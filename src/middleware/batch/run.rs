//! The tasks: one that sends batches for as long as any waits, and one for each batch that runs.

use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project::pin_project;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;
use tracing::{Instrument, Span};

use super::BatchError;
use super::crew::Crew;
use super::future::{Aboard, InFlight};
use super::layer::Common;
use super::queue::{Forming, Next};
use super::service::{Answer, Answers, Error, Shared, Waiting, is_late};
use crate::middleware::clock;
use crate::panics::detached;
use crate::request::RequestContext;

/// What the dispatcher holds for as long as it lives. If it dies before its work is done, nobody who waits is left in
/// the dark: their senders go, and the next request starts another.
pub(super) struct Keeper<R, T, E, K: Hash + Eq + Clone> {
    shared: Arc<Shared<R, T, E, K>>,
    has_ended: bool,
}

impl<R, T, E, K: Hash + Eq + Clone> Keeper<R, T, E, K> {
    pub(super) fn new(shared: Arc<Shared<R, T, E, K>>) -> Self {
        Self { shared, has_ended: false }
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for Keeper<R, T, E, K> {
    fn drop(&mut self) {
        if !self.has_ended {
            drop(self.shared.queue.abandon());
        }
    }
}

/// Sends batches until none waits.
///
/// It does not wait for the answers: each batch is run by a task of its own, so that several are at it where the inner
/// service is ready for several, and answers are handed out by as many threads.
pub(super) async fn dispatch<S, R, K>(mut service: S, mut keeper: Keeper<R, Answer<S, R>, Error<S, R>, K>)
where
    S: Service<Vec<R>> + Clone,
    S::Response: Answers<Error = S::Error> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Answer<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let mut sleep = pin!(None);
    let mut is_ready = false;
    let mut before = None;
    poll_fn(|cx| {
        loop {
            let budget = ready!(coop::poll_proceed(cx));
            let due = match keeper.shared.queue.next(clock::read, cx.waker(), before.take()) {
                Next::End => {
                    keeper.has_ended = true;
                    return Poll::Ready(());
                }
                Next::Ripe => None,
                Next::OperationIndex(due) => Some(Some(due)),
                Next::Blocked => Some(None),
            };
            if let Some(due) = due {
                if std::mem::take(&mut is_ready) {
                    // What it was for has left. Others may have the place meanwhile.
                    service = service.clone();
                }
                match due {
                    Some(due) => ready!(poll_until(sleep.as_mut(), due, cx)),
                    None => return Poll::Pending,
                }
                budget.made_progress();
                continue;
            }
            if !is_ready && let Err(error) = ready!(service.poll_ready(cx)) {
                keeper.has_ended = true;
                fail(keeper.shared.queue.abandon(), error);
                return Poll::Ready(());
            }
            is_ready = true;
            // Batches have gone on filling until here.
            if let Some(mut batch) = keeper.shared.queue.take() {
                let in_flight = InFlight::new(batch.crew.key.clone(), Arc::clone(&keeper.shared));
                let embarked = embark(&mut batch.members, &batch.crew);
                before = Some(batch.members);
                if let Some(Embarked { requests, replies, first }) = embarked {
                    let common = &keeper.shared.common;
                    is_ready = false;
                    common.batches.fetch_add(1, Ordering::Relaxed);
                    common.requests.fetch_add(requests.len() as u64, Ordering::Relaxed);
                    let span = run_span(&first, requests.len());
                    let inner = span.in_scope(|| service.call(requests));
                    let run = Run { inner, replies, crew: batch.crew, in_flight: Some(in_flight) };
                    tokio::spawn(detached("a run of the batch layer", run).instrument(span));
                }
            }
            budget.made_progress();
        }
    })
    .await;
}

/// The span of a run: within that of the first request in it, as there is one place for a span to be in, and with how
/// many requests share it.
fn run_span(first: &Span, requests: usize) -> Span {
    if first.is_disabled() {
        return Span::none();
    }
    tracing::error_span!(parent: first, "batch", requests)
}

fn poll_until(mut sleep: Pin<&mut Option<Sleep>>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if sleep.as_ref().as_pin_ref().is_none_or(|sleep| sleep.deadline() != due.into()) {
        sleep.set(Some(sleep_until(due.into())));
    }
    sleep.as_mut().as_pin_mut().map_or(Poll::Ready(()), |sleep| sleep.poll(cx))
}

type Reply<T, E> = oneshot::Sender<Result<T, BatchError<E>>>;

/// A batch that is sent.
struct Embarked<R, T, E> {
    requests: Vec<R>,
    replies: Vec<Reply<T, E>>,
    /// The span of the first of the requests.
    first: Span,
}

/// Those who still want an answer and can have it in time. `None` where there is nobody.
fn embark<R: RequestContext, T, E, K: Hash + Eq + Clone>(
    members: &mut Vec<Waiting<R, T, E>>,
    crew: &Crew<K, Arc<Shared<R, T, E, K>>>,
) -> Option<Embarked<R, T, E>> {
    let Common { expired, left, .. } = &*crew.home.common;
    let (mut requests, mut replies) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    let mut now = None;
    let mut places: Option<OwnedSemaphorePermit> = None;
    let mut first = Span::none();
    for Waiting { request, reply, place, span } in members.drain(..) {
        // Given back together, which takes one lock and not one each.
        match &mut places {
            Some(places) => places.merge(place),
            None => places = Some(place),
        }
        if reply.is_closed() {
            left.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if is_late(&request, &mut now) {
            // It does not leave as others do, once it is told.
            match reply.send(Err(BatchError::Expired)) {
                Ok(()) => {
                    expired.fetch_add(1, Ordering::Relaxed);
                    crew.leave();
                }
                Err(_) => drop(left.fetch_add(1, Ordering::Relaxed)),
            }
            continue;
        }
        if requests.is_empty() {
            first = span;
        }
        requests.push(request);
        replies.push(reply);
    }
    (!requests.is_empty()).then_some(Embarked { requests, replies, first })
}

/// Tells all that wait that the inner service has failed.
fn fail<R, T, E, K, H>(batches: Vec<Forming<K, Waiting<R, T, E>, H>>, error: E) {
    let error = Arc::new(error);
    for member in batches.into_iter().flat_map(|batch| batch.members) {
        // Whoever has left is not there to be told.
        let _ = member.reply.send(Err(BatchError::Shared(Arc::clone(&error))));
    }
}

/// A batch that runs. Once all who wanted an answer have left, the inner future is dropped.
#[pin_project]
struct Run<F, R, T, E, K: Hash + Eq + Clone> {
    #[pin]
    inner: F,
    replies: Vec<Reply<T, E>>,
    crew: Aboard<R, T, E, K>,
    in_flight: Option<InFlight<R, T, E, K>>,
}

impl<F, R, A, T, E, K> Future for Run<F, R, T, E, K>
where
    F: Future<Output = Result<A, E>>,
    A: Answers<Answer = T, Error = E>,
    K: Hash + Eq + Clone,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.crew.has_left(cx.waker()) {
            return Poll::Ready(());
        }
        let result = ready!(this.inner.poll(cx));
        // Before the answers are handed out: the next batch can be on its way meanwhile.
        *this.in_flight = None;
        answer(std::mem::take(this.replies), result);
        Poll::Ready(())
    }
}

fn answer<A: Answers>(replies: Vec<Reply<A::Answer, A::Error>>, result: Result<A, A::Error>) {
    // A caller may have left meanwhile; nobody is there to be told then.
    match result {
        Ok(answers) => {
            let mut answers = answers.into_vec().into_iter();
            for reply in replies {
                let answer =
                    answers.next().map_or(Err(BatchError::Unanswered), |answer| answer.map_err(BatchError::Inner));
                let _ = reply.send(answer);
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for reply in replies {
                let _ = reply.send(Err(BatchError::Shared(Arc::clone(&error))));
            }
        }
    }
}
