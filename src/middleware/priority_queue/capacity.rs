//! How many calls may wait, and how many do, in all services of one layer.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::layer::Settings;
use super::schedule::QueuePosition;
use crate::sync::Mutex;

/// The state of a [`PriorityQueueLayer`](super::PriorityQueueLayer): what waits now, and counts since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PriorityQueueSnapshot {
    /// Waiting calls.
    pub waiting: usize,
    /// Waiting calls by priority: low, normal, high.
    pub waiting_by_priority: [usize; 3],
    /// Total payload size of the waiting calls.
    pub waiting_bytes: u64,
    /// Services that have reserved a permit for the queue and have not been called.
    pub reserved: usize,
    /// Calls that waited and were given the inner service.
    pub served: u64,
    /// Calls rejected on arrival because the queue was full.
    pub rejected: u64,
    /// Waiting calls displaced by others.
    pub displaced: u64,
    /// Calls whose deadline passed, or came too close, before they were served.
    pub expired: u64,
}

/// The bounds of the queue and its counts.
#[derive(Debug)]
pub(super) struct Capacity {
    max_waiting: usize,
    max_bytes: u64,
    /// Held by each service that has reserved one, and by each waiting call that keeps its own.
    pub(super) permits: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    public: PriorityQueueSnapshot,
    /// Waiting calls that keep their permit.
    permits_kept: usize,
}

impl Capacity {
    pub(super) fn new(settings: &Settings) -> Self {
        let max_waiting = settings.capacity.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_waiting));
        Self { max_waiting, max_bytes: settings.max_bytes, permits, counts: Mutex::default() }
    }

    /// Adds a waiting call, or returns `false` if it exceeds a bound.
    pub(super) fn try_add(&self, position: &QueuePosition, keeps_permit: bool) -> bool {
        let Counts { public, permits_kept } = &mut *self.counts.lock();
        if public.waiting >= self.max_waiting || self.max_bytes - public.waiting_bytes < position.call.bytes {
            return false;
        }
        public.waiting += 1;
        public.waiting_by_priority[position.priority as usize] += 1;
        public.waiting_bytes += position.call.bytes;
        *permits_kept += usize::from(keeps_permit);
        true
    }

    /// Removes a waiting call. `count` counts why.
    pub(super) fn remove(&self, position: &QueuePosition, kept_permit: bool, count: fn(&mut PriorityQueueSnapshot)) {
        let Counts { public, permits_kept } = &mut *self.counts.lock();
        public.waiting -= 1;
        public.waiting_by_priority[position.priority as usize] -= 1;
        public.waiting_bytes -= position.call.bytes;
        *permits_kept -= usize::from(kept_permit);
        count(public);
    }

    /// Counts a call that does not wait.
    pub(super) fn count(&self, count: fn(&mut PriorityQueueSnapshot)) {
        count(&mut self.counts.lock().public);
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.max_bytes - self.counts.lock().public.waiting_bytes
    }

    pub(super) fn snapshot(&self) -> PriorityQueueSnapshot {
        let counts = self.counts.lock();
        let permits_taken = self.max_waiting - self.permits.available_permits();
        // Permits are taken and dropped without the lock, so the two may be out of step.
        PriorityQueueSnapshot { reserved: permits_taken.saturating_sub(counts.permits_kept), ..counts.public }
    }
}
