use std::sync::atomic::{AtomicU64, Ordering};

/// What a [`FallbackLayer`](super::FallbackLayer) has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FallbackStats {
    /// Calls that the fallback was given.
    pub fell_back: u64,
    /// Those of them that failed there, too.
    pub failed: u64,
    /// Calls that it was not given because their deadline had passed before it was ready.
    pub too_late: u64,
    /// Calls that wait for the fallback to be ready, or that it runs, just now.
    pub in_flight: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) fell_back: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) too_late: AtomicU64,
    pub(super) in_flight: AtomicU64,
}

impl Counts {
    pub(super) fn stats(&self) -> FallbackStats {
        FallbackStats {
            fell_back: self.fell_back.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            too_late: self.too_late.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
