//! Calls over the quota wait for their token, within bounds.

mod future;
mod layer;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use self::future::WaitFuture;
pub use self::layer::WaitLayer;
pub use self::service::Wait;

/// What all services of one layer share.
#[derive(Debug)]
struct Line<L> {
    limit: Arc<L>,
    max_wait: Duration,
    max_waiting: usize,
    waiting: AtomicUsize,
}

impl<L> Line<L> {
    /// A place among those that wait, if there is one.
    fn enter(self: &Arc<Self>) -> Option<Place<L>> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.max_waiting).then_some(n + 1))
            .ok()
            .map(|_| Place { line: Arc::clone(self) })
    }
}

/// A place among those that wait, given up when it is dropped.
#[derive(Debug)]
struct Place<L> {
    line: Arc<Line<L>>,
}

impl<L> Drop for Place<L> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
