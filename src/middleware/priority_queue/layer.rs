use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::line::Line;
use super::order::Rules;
use super::room::Room;
use super::{PriorityQueue, QueueStatus};
use crate::request::Priority;

/// Has calls wait in the order in which they matter. See the [module](super).
///
/// Clones share the bounds and the counts. The methods that configure the layer begin anew, so configure first and clone
/// after.
#[derive(Clone, Debug)]
pub struct PriorityQueueLayer {
    rules: Rules,
    room: Arc<Room>,
}

/// Turns of a tenant's more urgent calls, after which one goes to a lower priority of it that waits.
const PATIENCE: Option<NonZeroU32> = NonZeroU32::new(16);

impl PriorityQueueLayer {
    /// Lets `capacity` calls wait. With none, it is ready when the inner service is.
    pub fn new(capacity: usize) -> Self {
        let rules =
            Rules { patience: PATIENCE, weights: HashMap::new(), time_to_answer: Duration::ZERO, learns: false };
        Self { rules, room: Arc::new(Room::new(capacity, u64::MAX, false)) }
    }

    /// Bounds what the payloads of the waiting calls take together, as far as the requests
    /// [know it](crate::request::RequestContext::payload_bytes).
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        let Room { capacity, keep_places, .. } = *self.room;
        self.room = Arc::new(Room::new(capacity, bytes, keep_places));
        self
    }

    /// Gives `tenant` `weight` turns for one of a tenant of whom nothing is said, while both wait.
    ///
    /// ```
    /// use std::num::NonZeroU16;
    /// use tower_kernels::layers::PriorityQueueLayer;
    ///
    /// let layer = PriorityQueueLayer::new(1024).weight("acme", NonZeroU16::new(3).unwrap());
    /// ```
    #[must_use]
    pub fn weight(mut self, tenant: impl Into<Arc<str>>, weight: NonZeroU16) -> Self {
        self.rules.weights.insert(tenant.into(), weight);
        self.anew()
    }

    /// Keeps no call waiting that has less than `time` left until its deadline: it is refused then, as
    /// [`Late`](super::PriorityQueueError::Late).
    ///
    /// For calls that take at least so long from their turn on. Under more load than the inner service can take, whoever is
    /// next has hardly any time left, as that is who is next. Without this it is run to no avail, and all that follow as well.
    #[must_use]
    pub fn time_to_answer(mut self, time: Duration) -> Self {
        self.rules.time_to_answer = time;
        self.anew()
    }

    /// The same, where it is learned how long calls take from their turn to their answer, by
    /// [operation](crate::request::RequestContext::operation). A [time](Self::time_to_answer) that is given is the least.
    #[must_use]
    pub fn learn_time_to_answer(mut self) -> Self {
        self.rules.learns = true;
        self.anew()
    }

    /// Gives lower priorities of a tenant no turn at all while a higher one of it waits, in place of every seventeenth.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.rules.patience = None;
        self.anew()
    }

    /// Has a full queue be not ready, whoever waits in it, in place of choosing among the calls whom to refuse. For
    /// callers who would rather wait than be refused, such as a program that feeds it from a file.
    #[must_use]
    pub fn wait_when_full(mut self) -> Self {
        self.room = Arc::new(Room::new(self.room.capacity, self.room.max_bytes, true));
        self
    }

    /// How many calls of `priority` wait.
    pub fn waiting(&self, priority: Priority) -> usize {
        self.room.waiting(priority)
    }

    /// What waits, and what became of the rest.
    pub fn status(&self) -> QueueStatus {
        self.room.status()
    }

    fn anew(mut self) -> Self {
        let Room { capacity, max_bytes, keep_places, .. } = *self.room;
        self.room = Arc::new(Room::new(capacity, max_bytes, keep_places));
        self
    }
}

impl<S> Layer<S> for PriorityQueueLayer {
    type Service = PriorityQueue<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let line = Line::new(Arc::clone(&self.room), self.rules.clone());
        PriorityQueue::new(inner, Arc::new(line))
    }
}
