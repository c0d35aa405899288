use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::queue::Queue;
use super::shared::{Settings, Shared};
use super::{PriorityQueue, PriorityQueueSnapshot};

/// Queues calls by tenant, priority and deadline while the inner service is not ready. See the [module](super).
///
/// Clones share the bounds and the counts. The methods that configure the layer replace them, so configure first and clone
/// after.
#[derive(Clone, Debug)]
#[must_use]
pub struct PriorityQueueLayer {
    shared: Arc<Shared>,
}

impl PriorityQueueLayer {
    /// Lets up to `capacity` calls wait. With 0, it is ready when the inner service is.
    pub fn new(capacity: usize) -> Self {
        Self { shared: Arc::new(Shared::new(Settings::new(capacity))) }
    }

    /// Bounds the total payload size of the waiting calls, in bytes, as far as requests
    /// [know it](crate::request::RequestContext::payload_bytes).
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.with(|settings| settings.max_bytes = bytes)
    }

    /// Gives `tenant` `weight` turns for one turn of a tenant of weight 1, the default, while both have calls waiting.
    ///
    /// ```
    /// use std::num::NonZeroU16;
    /// use tower_kernels::layers::PriorityQueueLayer;
    ///
    /// let layer = PriorityQueueLayer::new(1024).weight("acme", NonZeroU16::new(3).unwrap());
    /// ```
    pub fn weight(self, tenant: impl Into<Arc<str>>, weight: NonZeroU16) -> Self {
        self.with(|settings| _ = settings.weights.insert(tenant.into(), weight))
    }

    /// Rejects calls with less than `time` left until their deadline, as [`Late`](super::PriorityQueueError::Late).
    ///
    /// Set it to the least time that calls take once served. Under overload the next call by deadline has hardly any time
    /// left; without this it is run in vain, and so are all that follow.
    pub fn min_service_time(self, time: Duration) -> Self {
        self.with(|settings| settings.min_service_time = time)
    }

    /// Learns how long calls of each [operation](crate::request::RequestContext::operation) take once served, and rejects
    /// calls with less time left until their deadline. A [`min_service_time`](Self::min_service_time) is the lower bound.
    pub fn learn_service_times(self) -> Self {
        self.with(|settings| settings.learn_service_times = true)
    }

    /// Serves lower priorities of a tenant only while no higher one waits. By default every seventeenth turn is theirs.
    pub fn strict_priority(self) -> Self {
        self.with(|settings| settings.max_passed_over = None)
    }

    /// Makes `poll_ready` wait while the queue is full, instead of choosing which calls to reject: for callers that prefer
    /// backpressure, such as a program that reads its requests from a file.
    pub fn wait_when_full(self) -> Self {
        self.with(|settings| settings.wait_when_full = true)
    }

    /// Returns what waits now, and the counts since the layer was created.
    pub fn snapshot(&self) -> PriorityQueueSnapshot {
        self.shared.snapshot()
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self { shared: Arc::new(Shared::new(settings)) }
    }
}

impl<S> Layer<S> for PriorityQueueLayer {
    type Service = PriorityQueue<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PriorityQueue::new(inner, Arc::new(Queue::new(Arc::clone(&self.shared))))
    }
}
