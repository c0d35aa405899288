//! How many may wait, and who waits: what all services of one layer share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::request::Priority;

/// What a [`PriorityQueueLayer`](super::PriorityQueueLayer) has waiting just now, and what became of the rest so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Calls that wait.
    pub waiting: usize,
    /// What they say that their payloads take together.
    pub waiting_bytes: u64,
    /// Services that hold a place for a call that has not been made.
    pub reserved: usize,
    /// Calls that have waited and had their turn.
    pub served: u64,
    /// Calls that were refused when they came.
    pub refused: u64,
    /// Calls that gave up their place to another.
    pub displaced: u64,
    /// Calls whose deadline passed, or came too near for an answer, before their turn.
    pub expired: u64,
}

/// The bounds, and counts of what is within.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) capacity: usize,
    pub(super) max_bytes: u64,
    /// Whether every call holds its place while it waits, and not only those without a tenant that nothing is more urgent than.
    pub(super) keep_places: bool,
    /// A place for each service that is ready to be called, and for each call that cannot be displaced.
    pub(super) places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How many of those that wait hold a place.
    kept: AtomicUsize,
    by_priority: [AtomicUsize; 3],
    bytes: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    displaced: AtomicU64,
    expired: AtomicU64,
}

/// How a call left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Served,
    Displaced,
    Expired,
    /// Its caller left, or nobody was there to give it its turn.
    Left,
}

impl Room {
    pub(super) fn new(capacity: usize, max_bytes: u64, keep_places: bool) -> Self {
        let capacity = capacity.min(Semaphore::MAX_PERMITS);
        Self {
            capacity,
            max_bytes,
            keep_places,
            places: Arc::new(Semaphore::new(capacity)),
            waiting: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            by_priority: Default::default(),
            bytes: AtomicU64::new(0),
            served: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// Whether there was room, which is then taken.
    pub(super) fn enter(&self, priority: Priority, bytes: u64) -> bool {
        let one_more = |n: usize| (n < self.capacity).then_some(n + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        let more = |n: u64| n.checked_add(bytes).filter(|&n| n <= self.max_bytes);
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.by_priority[priority as usize].fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(super) fn leave(&self, priority: Priority, bytes: u64, how: Exit) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.by_priority[priority as usize].fetch_sub(1, Ordering::Relaxed);
        match how {
            Exit::Served => self.served.fetch_add(1, Ordering::Relaxed),
            Exit::Displaced => self.displaced.fetch_add(1, Ordering::Relaxed),
            Exit::Expired => self.expired.fetch_add(1, Ordering::Relaxed),
            Exit::Left => 0,
        };
    }

    /// Counts a place that a call keeps while it waits.
    pub(super) fn keep(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that waited has left, with the place that it kept, if it did.
    pub(super) fn give_back<T>(&self, place: Option<T>) -> Option<T> {
        if place.is_some() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
        place
    }

    /// Counts one that never entered.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that came too late to enter.
    pub(super) fn expire(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    pub(super) fn waiting(&self, priority: Priority) -> usize {
        self.by_priority[priority as usize].load(Ordering::Relaxed)
    }

    /// As of now; what comes and goes meanwhile may be counted or not.
    pub(super) fn status(&self) -> QueueStatus {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let kept = self.kept.load(Ordering::Relaxed);
        let taken = self.capacity - self.places.available_permits();
        QueueStatus {
            waiting,
            reserved: taken.saturating_sub(kept),
            waiting_bytes: self.bytes.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            displaced: self.displaced.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
        }
    }
}
