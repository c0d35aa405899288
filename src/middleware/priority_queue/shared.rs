//! What all services of one layer share: the settings, how many calls may wait, and how many do.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::error::Rejection;
use super::schedule::{QueuePosition, TenantKey};
use crate::request::Share;
use crate::sync::Mutex;

#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) capacity: usize,
    pub(super) max_bytes: u64,
    pub(super) wait_when_full: bool,
    /// Turns in a row of a tenant's higher priorities after which a lower one has a turn; `None` for never.
    pub(super) max_passed_over: Option<NonZeroU32>,
    /// Weights of tenants, where they are not 1.
    pub(super) weights: HashMap<Arc<str>, NonZeroU16>,
    /// Least time until its deadline with which a call is still served.
    pub(super) min_service_time: Duration,
    pub(super) learn_service_times: bool,
}

impl Settings {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.min(Semaphore::MAX_PERMITS),
            max_bytes: u64::MAX,
            max_passed_over: NonZeroU32::new(16),
            ..Self::default()
        }
    }

    /// Returns the tenant of a call and its weight: those of the share if one is assigned, or if the call has no tenant.
    pub(super) fn tenant(&self, name: Option<&Arc<str>>, share: Option<Share>) -> (TenantKey, NonZeroU16) {
        if let (None, Some(name)) = (share, name) {
            return (TenantKey::Name(Arc::clone(name)), self.weights.get(name).copied().unwrap_or(NonZeroU16::MIN));
        }
        let share = share.unwrap_or_default();
        (TenantKey::Share(share.key()), share.weight())
    }
}

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

/// The settings and the counts of a layer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
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

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self { permits: Arc::new(Semaphore::new(settings.capacity)), settings, counts: Mutex::default() }
    }

    /// Adds a waiting call, or returns the bytes that are free if it exceeds a bound.
    pub(super) fn try_add(&self, position: &QueuePosition, keeps_permit: bool) -> Result<(), u64> {
        let Counts { public, permits_kept } = &mut *self.counts.lock();
        let free_bytes = self.settings.max_bytes - public.waiting_bytes;
        if public.waiting >= self.settings.capacity || free_bytes < position.call.bytes {
            return Err(free_bytes);
        }
        public.waiting += 1;
        public.waiting_by_priority[position.priority as usize] += 1;
        public.waiting_bytes += position.call.bytes;
        *permits_kept += usize::from(keeps_permit);
        Ok(())
    }

    /// Removes a waiting call. `count` counts its outcome.
    pub(super) fn remove(&self, position: &QueuePosition, kept_permit: bool, count: fn(&mut PriorityQueueSnapshot)) {
        let Counts { public, permits_kept } = &mut *self.counts.lock();
        public.waiting -= 1;
        public.waiting_by_priority[position.priority as usize] -= 1;
        public.waiting_bytes -= position.call.bytes;
        *permits_kept -= usize::from(kept_permit);
        count(public);
    }

    pub(super) fn count_rejected(&self, rejection: Rejection) {
        let counts = &mut self.counts.lock().public;
        match rejection {
            Rejection::Full { .. } => counts.rejected += 1,
            Rejection::Displaced { .. } => counts.displaced += 1,
            Rejection::Expired | Rejection::Late { .. } => counts.expired += 1,
            Rejection::Stopped => {}
        }
    }

    pub(super) fn snapshot(&self) -> PriorityQueueSnapshot {
        let counts = self.counts.lock();
        let permits_taken = self.settings.capacity - self.permits.available_permits();
        // Permits are taken and dropped without the lock, so the two may be out of step.
        PriorityQueueSnapshot { reserved: permits_taken.saturating_sub(counts.permits_kept), ..counts.public }
    }
}
