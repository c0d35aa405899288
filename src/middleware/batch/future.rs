use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tower_service::Service;

use super::BatchError;
use super::crew::Crew;
use super::service::{Answer, Answers, Error, Shared, is_late};
use crate::request::RequestContext;

/// The answer of a [`Batch`](super::Batch).
#[pin_project]
pub struct ResponseFuture<S, R, K>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    K: Hash + Eq + Clone,
{
    #[pin]
    state: State<S, R, K>,
}

type InFlightOf<S, R, K> = InFlight<R, Answer<S, R>, Error<S, R>, K>;
type SeatOf<S, R, K> = Seat<R, Answer<S, R>, Error<S, R>, K>;

#[pin_project(project = StateProj, project_replace = StateTaken)]
enum State<S, R, K>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    K: Hash + Eq + Clone,
{
    /// A call of its own.
    Called {
        #[pin]
        inner: S::Future,
        in_flight: Option<InFlightOf<S, R, K>>,
    },
    /// Waits for a call of its own.
    Alone(Box<Alone<S, R>>),
    /// In a batch.
    Waiting(SeatOf<S, R, K>),
    /// Whoever asks again is told again.
    Stopped,
}

struct Alone<S, R> {
    service: S,
    request: R,
    place: OwnedSemaphorePermit,
}

impl<S, R, K> ResponseFuture<S, R, K>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    K: Hash + Eq + Clone,
{
    pub(super) fn called(inner: S::Future, in_flight: Option<InFlightOf<S, R, K>>) -> Self {
        Self { state: State::Called { inner, in_flight } }
    }

    pub(super) fn alone(service: S, request: R, place: OwnedSemaphorePermit) -> Self {
        Self { state: State::Alone(Box::new(Alone { service, request, place })) }
    }

    pub(super) fn waiting(seat: SeatOf<S, R, K>) -> Self {
        Self { state: State::Waiting(seat) }
    }
}

impl<S, R, K> Future for ResponseFuture<S, R, K>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    R: RequestContext,
    K: Hash + Eq + Clone,
{
    type Output = Result<Answer<S, R>, BatchError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Called { inner, in_flight } => {
                    let result = ready!(inner.poll(cx));
                    // The key is free now, and not when the caller drops what is left.
                    *in_flight = None;
                    return Poll::Ready(only_answer(result));
                }
                StateProj::Alone(alone) => {
                    ready!(alone.service.poll_ready(cx)).map_err(BatchError::Inner)?;
                    let StateTaken::Alone(alone) = state.as_mut().project_replace(State::Stopped) else {
                        unreachable!("it has just been looked at")
                    };
                    let Alone { mut service, request, place } = *alone;
                    drop(place);
                    if is_late(&request, &mut None) {
                        return Poll::Ready(Err(BatchError::Expired));
                    }
                    let inner = service.call(vec![request]);
                    state.set(State::Called { inner, in_flight: None });
                }
                StateProj::Waiting(seat) => match ready!(seat.poll_answer(cx)) {
                    Some(answer) => return Poll::Ready(answer),
                    None => state.set(State::Stopped),
                },
                StateProj::Stopped => return Poll::Ready(Err(BatchError::Stopped)),
            }
        }
    }
}

/// Of a batch of one.
fn only_answer<A: Answers>(result: Result<A, A::Error>) -> Result<A::Answer, BatchError<A::Error>> {
    match result {
        Ok(answers) => match answers.into_vec().into_iter().next() {
            Some(answer) => answer.map_err(BatchError::Inner),
            None => Err(BatchError::Unanswered),
        },
        Err(error) => Err(BatchError::Inner(error)),
    }
}

/// A call of a key that counts as in flight until this is dropped.
pub(super) struct InFlight<R, T, E, K: Hash + Eq + Clone> {
    key: K,
    shared: Arc<Shared<R, T, E, K>>,
}

impl<R, T, E, K: Hash + Eq + Clone> InFlight<R, T, E, K> {
    pub(super) fn new(key: K, shared: Arc<Shared<R, T, E, K>>) -> Self {
        Self { key, shared }
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for InFlight<R, T, E, K> {
    fn drop(&mut self) {
        self.shared.queue.done(&self.key).wake();
    }
}

/// A request's place in a batch. Dropped before the answer is there, it is given up.
pub(super) struct Seat<R, T, E, K: Hash + Eq + Clone> {
    answer: oneshot::Receiver<Result<T, BatchError<E>>>,
    is_answered: bool,
    crew: Aboard<R, T, E, K>,
}

/// The crew of a batch of these requests.
pub(super) type Aboard<R, T, E, K> = Arc<Crew<K, Arc<Shared<R, T, E, K>>>>;

impl<R, T, E, K: Hash + Eq + Clone> Seat<R, T, E, K> {
    pub(super) fn new(answer: oneshot::Receiver<Result<T, BatchError<E>>>, crew: Aboard<R, T, E, K>) -> Self {
        Self { answer, is_answered: false, crew }
    }

    /// `None` where nobody is left to answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, BatchError<E>>>> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        self.is_answered = true;
        Poll::Ready(answer.ok())
    }
}

impl<R, T, E, K: Hash + Eq + Clone> Drop for Seat<R, T, E, K> {
    fn drop(&mut self) {
        if !self.is_answered {
            // First, so that whoever looks for members that have left sees this one.
            self.answer.close();
            self.crew.leave();
            let Shared { queue, common } = &*self.crew.home;
            let (left, call) = queue.left(&self.crew);
            common.left.fetch_add(left as u64, Ordering::Relaxed);
            call.wake();
        }
    }
}

impl<S, R, K> fmt::Debug for ResponseFuture<S, R, K>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    K: Hash + Eq + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Called { .. } => "called",
            State::Alone(_) => "waiting alone",
            State::Waiting(_) => "in a batch",
            State::Stopped => "stopped",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
