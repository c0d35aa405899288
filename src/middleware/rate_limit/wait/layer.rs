use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_layer::Layer;

use super::{Queue, Wait};

/// Limits the rate of calls and delays those over the quota. Made by
/// [`RateLimiterLayer::wait`](super::super::RateLimiterLayer::wait); clones share the quota and the bound on waiting
/// calls.
#[derive(Debug)]
pub struct WaitLayer<L> {
    queue: Arc<Queue<L>>,
}

/// The state of a [`WaitLayer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitSnapshot {
    /// Calls that wait for a token or, having one, for readiness.
    pub waiting: usize,
}

impl<L> WaitLayer<L> {
    pub(in super::super) fn new(limit: Arc<L>, max_wait: Duration, max_waiting: usize) -> Self {
        Self { queue: Arc::new(Queue { limit, max_wait, max_waiting, waiting: AtomicUsize::new(0) }) }
    }

    /// The state of the layer.
    pub fn snapshot(&self) -> WaitSnapshot {
        WaitSnapshot { waiting: self.queue.waiting.load(Ordering::Relaxed) }
    }
}

impl<S, L> Layer<S> for WaitLayer<L> {
    type Service = Wait<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Wait::new(inner, Arc::clone(&self.queue))
    }
}

// Not derived: the shared quota needs no `L: Clone`.
impl<L> Clone for WaitLayer<L> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}
