use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The state of a [`FallbackLayer`](super::FallbackLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FallbackSnapshot {
    /// Calls of the fallback.
    pub fell_back: u64,
    /// Calls of the fallback that failed, too.
    pub failed: u64,
    /// Calls whose deadline passed before the fallback was ready.
    pub deadline_exceeded: u64,
    /// Calls that wait for the fallback to be ready, or that it runs.
    pub in_flight: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) fell_back: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) deadline_exceeded: AtomicU64,
    in_flight: AtomicU64,
}

impl Counts {
    pub(super) fn snapshot(&self) -> FallbackSnapshot {
        FallbackSnapshot {
            fell_back: self.fell_back.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            deadline_exceeded: self.deadline_exceeded.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts a call as in flight until it is dropped.
pub(super) struct InFlight(pub(super) Arc<Counts>);

impl InFlight {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        count(&counts.in_flight);
        Self(Arc::clone(counts))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
