//! The task that waits for the inner service on behalf of all waiting calls. The first call that has to wait starts it, and it
//! ends when no call waits.
//!
//! It is a task of its own, and not one of the waiting calls, so that a caller that does not poll its future cannot hold up
//! the others: it is given the inner service once, and the queue goes on.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use scopeguard::ScopeGuard;
use tokio::task::coop::poll_proceed;
use tower_service::Service;

use super::queue::Queue;
use crate::middleware::lazy_timer::LazyTimer;

/// Returns a task that serves the waiting calls until there are none. `service` must not have been polled ready. If the task
/// ends early, by a panic or with its runtime, all waiting calls are rejected.
pub(super) fn work<S, R>(queue: Arc<Queue<S>>, mut service: S) -> impl Future<Output = ()>
where
    S: Service<R> + Clone,
{
    let queue = scopeguard::guard(queue, |queue| queue.stop());
    async move {
        while let Some(deadline) = queue.expire() {
            let mut timer = pin!(LazyTimer::new(deadline));
            let mut changed = pin!(queue.changed.notified());
            // The timer stays while calls are served: one that fires too early costs less than one for each turn.
            poll_fn(|cx| {
                loop {
                    if changed.as_mut().poll(cx).is_ready() || timer.as_mut().poll_elapsed(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    ready!(poll_proceed(cx)).made_progress();
                    let is_ready = ready!(service.poll_ready(cx)).is_ok();
                    let fresh = service.clone();
                    let polled = mem::replace(&mut service, fresh);
                    // A service that failed is discarded: the next call polls a clone of its own and gets an error of its own.
                    queue.serve_next(if is_ready { polled } else { service.clone() });
                }
            })
            .await;
        }
        ScopeGuard::into_inner(queue);
    }
}
