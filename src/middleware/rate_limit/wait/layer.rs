use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_layer::Layer;

use super::{Queue, Wait};
use crate::middleware::derive::derive_clone;

/// Limits the rate of calls and delays those over the quota. Made by
/// [`RateLimiterLayer::wait`](super::super::RateLimiterLayer::wait); clones share the quota and the bound on waiting
/// calls.
#[derive(Debug)]
#[must_use]
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
        let max_waiting = max_waiting.min(Semaphore::MAX_PERMITS);
        Self { queue: Arc::new(Queue { limit, max_wait, max_waiting, permits: Arc::new(Semaphore::new(max_waiting)) }) }
    }

    /// The state of the layer.
    pub fn snapshot(&self) -> WaitSnapshot {
        WaitSnapshot { waiting: self.queue.max_waiting - self.queue.permits.available_permits() }
    }
}

impl<S, L> Layer<S> for WaitLayer<L> {
    type Service = Wait<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Wait::new(inner, Arc::clone(&self.queue))
    }
}

derive_clone!(WaitLayer::<L> { queue });
