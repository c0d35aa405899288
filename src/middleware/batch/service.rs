use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::PollSemaphore;
use tower_service::Service;
use tracing::Span;

use super::BatchError;
use super::future::{InFlight, ResponseFuture, Seat};
use super::join::{Join, Together};
use super::layer::{BatchLayer, Common};
use super::queue::{Call, Entered, Member, Queue};
use super::run::{Keeper, dispatch};
use crate::middleware::clock;
use crate::middleware::inner_service::forward_to_inner;
use crate::panics::detached;
use crate::request::RequestContext;

/// The answers to a batch: a `Vec` with one result for each request, in their order.
///
/// The error of one is of the type of the inner service's own.
pub trait Answers: sealed::Sealed {
    /// To one request.
    type Answer;
    /// Of one request.
    type Error;

    #[doc(hidden)]
    fn into_vec(self) -> Vec<Result<Self::Answer, Self::Error>>;
}

impl<T, E> Answers for Vec<Result<T, E>> {
    type Answer = T;
    type Error = E;

    fn into_vec(self) -> Vec<Result<T, E>> {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T, E> Sealed for Vec<Result<T, E>> {}
}

pub(super) type Answer<S, R> = <<S as Service<Vec<R>>>::Response as Answers>::Answer;
pub(super) type Error<S, R> = <S as Service<Vec<R>>>::Error;
pub(super) type Key<J, R> = <J as Join<R>>::Key;
type Queued<R, T, E, K> = Queue<K, Waiting<R, T, E>, Arc<Shared<R, T, E, K>>>;

/// A request that waits in a batch.
pub(super) struct Waiting<R, T, E> {
    pub(super) request: R,
    pub(super) reply: oneshot::Sender<Result<T, BatchError<E>>>,
    /// Until it is sent.
    pub(super) place: OwnedSemaphorePermit,
    /// Of its caller.
    pub(super) span: Span,
}

impl<R, T, E> Member for Waiting<R, T, E> {
    fn is_here(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// What the clones of a service, its futures and its tasks share.
pub(super) struct Shared<R, T, E, K> {
    pub(super) queue: Queued<R, T, E, K>,
    pub(super) common: Arc<Common>,
}

/// Turns a service of batches into a service of requests. See the [module](super).
pub struct Batch<S, R, J = Together>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    J: Join<R>,
{
    inner: S,
    join: Arc<J>,
    #[allow(clippy::type_complexity, reason = "four types that belong together")]
    shared: Arc<Shared<R, Answer<S, R>, Error<S, R>, Key<J, R>>>,
    places: PollSemaphore,
    /// A place to wait.
    place: Option<OwnedSemaphorePermit>,
    /// Whether `inner` is ready, which is asked only while nothing waits.
    is_ready: bool,
}

impl<S, R, J> Batch<S, R, J>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    J: Join<R>,
{
    /// Merges requests into calls of `inner`, as `layer` says.
    pub fn new(inner: S, layer: &BatchLayer<R, J>) -> Self {
        let shared = Shared { queue: Queue::new(layer.limits), common: Arc::clone(&layer.common) };
        Self {
            inner,
            join: Arc::clone(&layer.join),
            shared: Arc::new(shared),
            places: PollSemaphore::new(Arc::clone(&layer.common.places)),
            place: None,
            is_ready: false,
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Calls in flight, of requests that may share one, and batches that wait.
    pub fn level(&self) -> (usize, usize) {
        self.shared.queue.level()
    }
}

impl<S, R, J> Service<R> for Batch<S, R, J>
where
    S: Service<Vec<R>> + Clone + Send + 'static,
    S::Response: Answers<Error = S::Error> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Answer<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    J: Join<R>,
    J::Key: Send + Sync + 'static,
{
    type Response = Answer<S, R>;
    type Error = BatchError<S::Error>;
    type Future = ResponseFuture<S, R, J::Key>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.place.is_none() {
            // Only whoever closes the semaphore could make this `None`, and nobody does.
            let place = ready!(self.places.poll_acquire(cx)).ok_or(BatchError::Stopped)?;
            self.place = Some(place);
        }
        // What waits comes first, and one of the tasks waits for the inner service on behalf of all.
        if !self.is_ready && self.shared.queue.is_empty() {
            match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => self.is_ready = true,
                Poll::Ready(Err(error)) => {
                    self.place = None;
                    return Poll::Ready(Err(BatchError::Inner(error)));
                }
                // It is left to wait for a place here, and not in the line before the inner service.
                Poll::Pending => self.inner = self.inner.clone(),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let place = self.place.take().expect("`call` without `poll_ready` having answered `Ready(Ok)`");
        let is_ready = std::mem::take(&mut self.is_ready);
        let key = self.join.key(&mut request);
        let weight = self.join.weight(&request);
        let Some(key) = key.filter(|_| weight <= self.shared.queue.limits().weight) else {
            return if is_ready {
                ResponseFuture::called(self.inner.call(vec![request]), None)
            } else {
                ResponseFuture::alone(self.inner.clone(), request, place)
            };
        };
        let mut request = Some(request);
        let mut answer = None;
        // Made before the lock is taken, where it is known to be needed.
        let mut channel = (!is_ready).then(oneshot::channel);
        let entered = self.shared.queue.enter(
            key,
            is_ready,
            weight,
            || Arc::clone(&self.shared),
            clock::now,
            || {
                let (reply, receiver) = channel.take().unwrap_or_else(oneshot::channel);
                answer = Some(receiver);
                Waiting { request: request.take().expect("taken once"), reply, place, span: Span::current() }
            },
        );
        match (entered, request, answer) {
            (Entered::Waits(crew, call), _, Some(answer)) => {
                if is_ready {
                    // Given back: another batch may have it.
                    self.inner = self.inner.clone();
                }
                match call {
                    Call::Start => self.start(),
                    call => call.wake(),
                }
                ResponseFuture::waiting(Seat::new(answer, crew))
            }
            (Entered::Direct(key), Some(request), _) => {
                // Made first, so that the key is free again even if the call should panic.
                let in_flight = InFlight::new(key, Arc::clone(&self.shared));
                ResponseFuture::called(self.inner.call(vec![request]), Some(in_flight))
            }
            _ => unreachable!("a request waits or it does not"),
        }
    }
}

impl<S, R, J> Batch<S, R, J>
where
    S: Service<Vec<R>> + Clone + Send + 'static,
    S::Response: Answers<Error = S::Error> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    Answer<S, R>: Send + 'static,
    R: RequestContext + Send + 'static,
    J: Join<R>,
    J::Key: Send + Sync + 'static,
{
    /// Starts the dispatcher. Where there is no runtime to start it on, or that is shutting down, it dies at once, and
    /// whoever waits is told so.
    fn start(&self) {
        let dispatcher = dispatch(self.inner.clone(), Keeper::new(Arc::clone(&self.shared)));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(detached("the dispatcher of the batch layer", dispatcher));
        }
    }
}

/// A clone starts without a place and without the inner service's readiness: what one handle has reserved is its alone.
impl<S, R, J> Clone for Batch<S, R, J>
where
    S: Service<Vec<R>> + Clone,
    S::Response: Answers<Error = S::Error>,
    J: Join<R>,
{
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            join: Arc::clone(&self.join),
            shared: Arc::clone(&self.shared),
            places: self.places.clone(),
            place: None,
            is_ready: false,
        }
    }
}

forward_to_inner!(Batch::<S, R, J> { inner } where S: Service<Vec<R>, Response: Answers<Error = S::Error>>, J: Join<R>);

impl<S, R, J> fmt::Debug for Batch<S, R, J>
where
    S: Service<Vec<R>> + fmt::Debug,
    S::Response: Answers<Error = S::Error>,
    J: Join<R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_flight, waiting) = self.level();
        f.debug_struct("Batch")
            .field("inner", &self.inner)
            .field("limits", self.shared.queue.limits())
            .field("in_flight", &in_flight)
            .field("waiting", &waiting)
            .field("ready", &self.place.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether a request is of no use any more.
pub(super) fn is_late<R: RequestContext>(request: &R, now: &mut Option<Instant>) -> bool {
    request.deadline().is_some_and(|deadline| deadline <= *now.get_or_insert_with(clock::read))
}
