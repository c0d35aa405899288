use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_layer::Layer;

use super::{Line, Wait};

/// Has calls over the quota wait. Made by [`RateLimiterLayer::wait`](super::super::RateLimiterLayer::wait); clones share
/// the quota and the bound on those that wait.
#[derive(Debug)]
pub struct WaitLayer<L> {
    line: Arc<Line<L>>,
}

impl<L> WaitLayer<L> {
    pub(in super::super) fn new(limit: Arc<L>, max_wait: Duration, max_waiting: usize) -> Self {
        Self { line: Arc::new(Line { limit, max_wait, max_waiting, waiting: AtomicUsize::new(0) }) }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.line.waiting.load(Ordering::Relaxed)
    }
}

impl<S, L> Layer<S> for WaitLayer<L> {
    type Service = Wait<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Wait::new(inner, Arc::clone(&self.line))
    }
}

// By hand: a clone needs no `L: Clone`, the quota is shared.
impl<L> Clone for WaitLayer<L> {
    fn clone(&self) -> Self {
        Self { line: Arc::clone(&self.line) }
    }
}
