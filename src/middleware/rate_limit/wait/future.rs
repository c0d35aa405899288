use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;

use super::super::{Limit, RateLimitError};
use super::Queue;
use crate::middleware::call_when_ready::CallWhenReady;
use crate::middleware::clock;
use crate::middleware::lazy_timer::LazyTimer;

pin_project! {
    /// A call that has a token or waits for one, and then for the readiness of the service.
    #[derive(Debug)]
    pub struct CallFuture<S: Service<R>, R, L> {
        #[pin]
        call: CallWhenReady<S, R>,
        // `None` once the service is called.
        waiting: Option<Waiting<L>>,
        // Elapses when there can be a token.
        #[pin]
        timer: LazyTimer,
    }
}

#[derive(Debug)]
struct Waiting<L> {
    queue: Arc<Queue<L>>,
    /// Counts the call as waiting, for readiness as well.
    _permit: OwnedSemaphorePermit,
    give_up: Instant,
    has_token: bool,
}

impl<S: Service<R>, R, L> CallFuture<S, R, L> {
    pub(super) fn called(future: S::Future) -> Self {
        Self { call: CallWhenReady::called(future), waiting: None, timer: LazyTimer::new(None) }
    }

    /// `service` must not have been polled ready. A token can be there after `wait`.
    pub(super) fn waiting(
        service: S,
        request: R,
        queue: Arc<Queue<L>>,
        permit: OwnedSemaphorePermit,
        wait: Duration,
    ) -> Self {
        let now = clock::now();
        // The layer's bound is at least this wait, which is the time until the token and no more than a century.
        let give_up = now.checked_add(queue.max_wait).unwrap_or(now + wait);
        Self {
            call: CallWhenReady::waiting(service, request),
            waiting: Some(Waiting { queue, _permit: permit, give_up, has_token: false }),
            timer: LazyTimer::new(Some(now + wait)),
        }
    }
}

impl<S, R, L> Future for CallFuture<S, R, L>
where
    S: Service<R>,
    L: Limit<R>,
{
    type Output = Result<S::Response, RateLimitError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        while let (Some(waiting), Some(request)) = (this.waiting.as_mut(), this.call.request())
            && !waiting.has_token
        {
            ready!(this.timer.as_mut().poll_elapsed(cx));
            match waiting.queue.limit.take(request) {
                Ok(()) => waiting.has_token = true,
                Err(retry_after) => {
                    // Another call has taken it.
                    let next_try = clock::now() + retry_after;
                    if next_try > waiting.give_up {
                        this.call.cancel();
                        *this.waiting = None;
                        return Poll::Ready(Err(RateLimitError::Limited { retry_after }));
                    }
                    this.timer.set(LazyTimer::new(Some(next_try)));
                }
            }
        }
        let result = ready!(this.call.poll(cx, |_| *this.waiting = None));
        // If the service failed before the call.
        *this.waiting = None;
        Poll::Ready(result.map_err(RateLimitError::Inner))
    }
}
