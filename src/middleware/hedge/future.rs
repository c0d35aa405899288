use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project::pin_project;
use tower_service::Service;

use super::latency::Which;
use super::layer::{Delay, Shared};
use crate::middleware::clock;
use crate::middleware::clone_source::CloneSource;
use crate::middleware::lazy_timer::LazyTimer;
use crate::request::ResponseContext;

/// The answer of a [`Hedge`](super::Hedge).
///
/// # Panics
/// Where the inner future is pending and the request may run twice, polling needs a Tokio runtime with time enabled.
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R> {
    /// `None` once it has failed and the second goes on.
    #[pin]
    first: Option<S::Future>,
    #[pin]
    second: Second<S, R>,
    timed: Option<Timed>,
}

/// What it takes to learn how long calls take.
pub(super) struct Timed {
    pub(super) shared: Arc<Shared>,
    pub(super) which: Which,
    pub(super) begun: Instant,
}

impl Timed {
    /// The call has answered.
    fn record(&self) {
        if let Delay::Learned(latencies) = &self.shared.delay {
            latencies.record(&self.which, clock::read().saturating_duration_since(self.begun));
        }
    }
}

/// `Planned`, `ForReadiness`, `Called`, in this order, or `None` at any time.
#[pin_project(project = SecondProj)]
pub(super) enum Second<S: Service<R>, R> {
    None,
    Planned {
        more: Option<More<S, R>>,
        #[pin]
        timer: LazyTimer,
    },
    ForReadiness {
        service: S,
        request: Option<R>,
        token: Option<Token>,
    },
    Called {
        #[pin]
        future: S::Future,
        shared: Arc<Shared>,
    },
}

/// What a second attempt needs.
pub(super) struct More<S, R> {
    source: CloneSource<S>,
    request: R,
    shared: Arc<Shared>,
}

/// What the budget gave for an attempt. Where that is not made, it is given back.
pub(super) struct Token(Option<Arc<Shared>>);

impl Token {
    fn take(shared: Arc<Shared>) -> Option<Self> {
        if shared.budget.withdraw() {
            return Some(Self(Some(shared)));
        }
        count(&shared.without_budget);
        None
    }

    fn spend(mut self) -> Option<Arc<Shared>> {
        self.0.take()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.budget.give_back();
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<S: Service<R>, R> Second<S, R> {
    pub(super) fn new(source: CloneSource<S>, request: R, due: Instant, shared: Arc<Shared>) -> Self {
        Self::Planned { more: Some(More { source, request, shared }), timer: LazyTimer::new(Some(due)) }
    }

    fn is_called(&self) -> bool {
        matches!(self, Self::Called { .. })
    }

    /// Ready with the answer of the second attempt. For as long as it is not called it comes to nothing.
    // Apart, so that an answer that is there at once is not made to keep room for it.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>>
    where
        S: Clone,
    {
        loop {
            let next = match self.as_mut().project() {
                SecondProj::None => return Poll::Pending,
                SecondProj::Planned { more, timer } => {
                    if timer.poll_elapsed(cx).is_pending() {
                        return Poll::Pending;
                    }
                    match more.take().and_then(|more| Some((Token::take(more.shared)?, more.source, more.request))) {
                        Some((token, source, request)) => {
                            Self::ForReadiness { service: source.get(), request: Some(request), token: Some(token) }
                        }
                        None => Self::None,
                    }
                }
                SecondProj::ForReadiness { service, request, token } => match service.poll_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The first goes on, and has a better chance than one that is not ready at all.
                    Poll::Ready(Err(_)) => Self::None,
                    Poll::Ready(Ok(())) => match (request.take(), token.take().and_then(Token::spend)) {
                        (Some(request), Some(shared)) => {
                            count(&shared.hedged);
                            Self::Called { future: service.call(request), shared }
                        }
                        _ => Self::None,
                    },
                },
                SecondProj::Called { future, .. } => return future.poll(cx),
            };
            self.set(next);
        }
    }
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    #[inline]
    pub(super) fn new(first: S::Future, second: Option<Second<S, R>>, timed: Option<Timed>) -> Self {
        Self { first: Some(first), second: second.unwrap_or(Second::None), timed }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Response: ResponseContext> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut ended = None;
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = first.poll(cx)
        {
            // One that fails leaves the field to the other, where that has been called.
            if !failed(&result) || !this.second.is_called() {
                ended = Some(result);
            } else {
                this.first.set(None);
            }
        }
        if ended.is_none()
            && let Poll::Ready(result) = this.second.as_mut().poll(cx)
        {
            if failed(&result) && this.first.is_some() {
                this.second.set(Second::None);
            } else {
                if let Second::Called { shared, .. } = &*this.second
                    && !failed(&result)
                {
                    count(&shared.won);
                }
                ended = Some(result);
            }
        }
        let Some(result) = ended else { return Poll::Pending };
        // The loser stops now, and not when the caller drops what is left.
        this.first.set(None);
        this.second.set(Second::None);
        // From the call on, whichever it was that answered: so what is learned is how long the first one takes, or that it
        // takes longer than the delay, and hedging does not make the quantile shorter that it goes by.
        if let Some(timed) = this.timed.take().filter(|_| !failed(&result)) {
            timed.record();
        }
        Poll::Ready(result)
    }
}

#[inline]
fn failed<T: ResponseContext, E>(result: &Result<T, E>) -> bool {
    result.as_ref().map_or(true, |response| response.failure().is_some())
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = match self.second {
            Second::None => "none",
            Second::Planned { .. } => "planned",
            Second::ForReadiness { .. } => "waiting for readiness",
            Second::Called { .. } => "called",
        };
        f.debug_struct("ResponseFuture").field("second", &second).finish_non_exhaustive()
    }
}
