//! The task that waits for the inner service on behalf of all waiting calls. The first call that has to wait starts it, and it
//! ends when no call waits.
//!
//! It is a task of its own, and not one of the waiting calls, so that a caller that does not poll its future cannot hold up
//! the others: it is given the inner service once, and the queue goes on.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::coop::consume_budget;
use tower_service::Service;

use super::queue::Queue;
use crate::middleware::clock;
use crate::middleware::lazy_timer::LazyTimer;

/// Rejects all waiting calls if the worker ends early, by a panic or with its runtime.
pub(super) struct WorkerGuard<S> {
    queue: Arc<Queue<S>>,
    is_done: bool,
}

impl<S> WorkerGuard<S> {
    pub(super) fn new(queue: Arc<Queue<S>>) -> Self {
        Self { queue, is_done: false }
    }
}

impl<S> Drop for WorkerGuard<S> {
    fn drop(&mut self) {
        if !self.is_done {
            self.queue.stop();
        }
    }
}

/// Serves the waiting calls until there are none. `service` must not have been polled ready.
pub(super) async fn run<S, R>(mut guard: WorkerGuard<S>, mut service: S)
where
    S: Service<R> + Clone,
{
    loop {
        let Some(deadline) = guard.queue.expire(clock::read()) else {
            guard.is_done = true;
            return;
        };
        let mut timer = pin!(LazyTimer::new(deadline));
        let mut changed = pin!(guard.queue.changed.notified());
        let is_ready = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() || timer.as_mut().poll_elapsed(cx).is_ready() {
                return Poll::Ready(None);
            }
            service.poll_ready(cx).map(|ready| Some(ready.is_ok()))
        })
        .await;
        if let Some(is_ready) = is_ready {
            let fresh = service.clone();
            let polled = mem::replace(&mut service, fresh);
            // A service that failed is discarded: the next call polls a clone of its own and gets an error of its own.
            let turn = if is_ready { polled } else { service.clone() };
            guard.queue.serve_next(turn, clock::read());
        }
        consume_budget().await;
    }
}
