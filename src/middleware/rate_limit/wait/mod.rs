//! Calls over the quota wait for their token, within bounds.

mod future;
mod layer;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use self::future::WaitFuture;
pub use self::layer::{WaitLayer, WaitSnapshot};
pub use self::service::Wait;

/// The calls that wait for a token, which all services of one layer share.
#[derive(Debug)]
struct Queue<L> {
    limit: Arc<L>,
    max_wait: Duration,
    max_waiting: usize,
    waiting: AtomicUsize,
}

impl<L> Queue<L> {
    /// A permit to wait, unless `max_waiting` calls do.
    fn try_acquire(self: &Arc<Self>) -> Option<Permit<L>> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.max_waiting).then_some(n + 1))
            .ok()
            .map(|_| Permit { queue: Arc::clone(self) })
    }
}

/// Counts a call as waiting until it is dropped.
#[derive(Debug)]
struct Permit<L> {
    queue: Arc<Queue<L>>,
}

impl<L> Drop for Permit<L> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
