use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use super::policy::{Policy, RetryPermit};
use crate::error::AnyError;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::derive::derive_debug;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::{RequestContext, ResponseContext};

/// Response future of [`Retry`](super::Retry).
///
/// # Panics
/// Polling needs a Tokio runtime with time enabled if the call is retried.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    #[pin]
    state: State<S, R>,
    /// The last attempt, if another is to follow. Boxed, as few calls fail and every future would have the room for it.
    failed: Option<Box<Failed<S, R>>>,
    /// `None` if the call must not be retried.
    retries: Option<Retries<S, R>>,
}

derive_debug!(ResponseFuture::<S, R> { retries } where S: Service<R>);

/// What further attempts need.
pub(super) struct Retries<S, R> {
    pub(super) source: CloneSource<S>,
    pub(super) request: R,
    pub(super) attempts: u32,
    pub(super) policy: Arc<Policy>,
}

derive_debug!(Retries::<S, R> { attempts, policy });

impl<S, R: Clone> Retries<S, R> {
    /// Returns the request for the next attempt. The last one needs no copy.
    fn next_request(this: &mut Option<Self>) -> R {
        let retries = this.as_ref().expect(COMPLETED);
        if retries.attempts < retries.policy.max_attempts {
            return retries.request.clone();
        }
        this.take().expect(COMPLETED).request
    }
}

/// `Call`, and for each retry `Backoff`, `AwaitReady` and `Call` again.
#[pin_project(project = StateProj)]
enum State<S: Service<R>, R> {
    Call {
        #[pin]
        future: S::Future,
    },
    Backoff {
        #[pin]
        sleep: Sleep,
    },
    AwaitReady {
        service: S,
        #[pin]
        timer: LazyTimer,
    },
}

/// An attempt that is to be followed by another. Its result is that of the call if there is no time for the other.
struct Failed<S: Service<R>, R> {
    result: Result<S::Response, S::Error>,
    permit: RetryPermit,
}

const COMPLETED: &str = "polled after completion";

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn new(future: S::Future, retries: Option<Retries<S, R>>) -> Self {
        Self { state: State::Call { future }, failed: None, retries }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext, Error: AnyError> + Clone,
    R: RequestContext + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let result = match this.state.as_mut().project() {
                StateProj::Call { future } => ready!(future.poll(cx)),
                StateProj::Backoff { sleep } => {
                    ready!(sleep.poll(cx));
                    let retries = this.retries.as_ref().expect(COMPLETED);
                    let (service, timer) = (retries.source.get(), LazyTimer::new(retries.request.deadline()));
                    this.state.set(State::AwaitReady { service, timer });
                    continue;
                }
                StateProj::AwaitReady { service, timer } => {
                    // First, as a request past its deadline is not sent even if the service is ready.
                    if timer.poll_elapsed(cx).is_ready() {
                        this.retries.as_ref().expect(COMPLETED).policy.counts.lock().deadline_exceeded += 1;
                        return Poll::Ready(this.failed.take().expect(COMPLETED).result);
                    }
                    let ready = ready!(service.poll_ready(cx));
                    this.failed.take().expect(COMPLETED).permit.spend();
                    this.retries.as_mut().expect(COMPLETED).attempts += 1;
                    match ready {
                        Err(error) => Err(error),
                        Ok(()) => {
                            let future = service.call(Retries::next_request(this.retries));
                            this.state.set(State::Call { future });
                            continue;
                        }
                    }
                }
            };
            let next = this
                .retries
                .as_ref()
                .and_then(|retries| retries.policy.next_attempt(&result, retries.attempts, retries.request.deadline()));
            let Some((due, permit)) = next else { return Poll::Ready(result) };
            *this.failed = Some(Box::new(Failed { result, permit }));
            this.state.set(State::Backoff { sleep: sleep_until(due.into()) });
        }
    }
}
