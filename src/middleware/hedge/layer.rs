use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_layer::Layer;

use super::Hedge;
use super::latency::Latencies;
use crate::middleware::retry::Budget;

/// Makes a second attempt at slow calls. See the [module](super).
///
/// Clones share the budget, the latencies and the counts. The methods that configure the layer begin with new latencies and
/// counts, so configure first and clone after.
pub struct HedgeLayer<P> {
    shared: Arc<Shared>,
    is_idempotent: Arc<P>,
}

/// What a layer, its clones and their services share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) delay: Delay,
    pub(super) budget: Budget,
    pub(super) hedged: AtomicU64,
    pub(super) won: AtomicU64,
    pub(super) budget_exhausted: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The time between a call and its second attempt.
#[derive(Debug)]
pub(super) enum Delay {
    Fixed(Duration),
    Quantile(Latencies),
}

/// The state of a [`HedgeLayer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HedgeSnapshot {
    /// Second attempts.
    pub hedged: u64,
    /// Second attempts that succeeded before the first.
    pub won: u64,
    /// Second attempts that were not made because the budget was exhausted. Many of them mean that all calls are slow.
    pub budget_exhausted: u64,
}

/// Operations with latencies of their own, which take 1 KB each.
const MAX_OPERATIONS: usize = 256;

impl<P> HedgeLayer<P> {
    /// Creates a layer that hedges the requests for which `is_idempotent` returns `true`: after the 95th percentile of the
    /// latency of their operation, for a twentieth of the calls and 10 at once.
    pub fn new<R>(is_idempotent: P) -> Self
    where
        P: Fn(&R) -> bool,
    {
        let delay = Delay::Quantile(Latencies::new(MAX_OPERATIONS, 0.95));
        Self::with(delay, Budget::new(0.05, 10), Arc::new(is_idempotent))
    }

    fn with(delay: Delay, budget: Budget, is_idempotent: Arc<P>) -> Self {
        let [hedged, won, budget_exhausted] = [const { AtomicU64::new(0) }; 3];
        Self { shared: Arc::new(Shared { delay, budget, hedged, won, budget_exhausted }), is_idempotent }
    }

    /// Makes the second attempt when a call takes longer than this quantile of the latencies of its operation. There is none
    /// until some 100 of them have succeeded.
    ///
    /// # Panics
    /// If the quantile is not above 0 and below 1.
    #[must_use]
    #[track_caller]
    pub fn after_quantile(self, quantile: f64) -> Self {
        assert!(quantile > 0.0 && quantile < 1.0, "a quantile must be above 0 and below 1");
        let delay = Delay::Quantile(Latencies::new(MAX_OPERATIONS, quantile));
        Self::with(delay, self.shared.budget.clone(), self.is_idempotent)
    }

    /// Makes the second attempt when a call takes longer than this.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::with(Delay::Fixed(delay), self.shared.budget.clone(), self.is_idempotent)
    }

    /// Sets the budget of second attempts, which several layers may share.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        let delay = match &self.shared.delay {
            Delay::Fixed(delay) => Delay::Fixed(*delay),
            Delay::Quantile(latencies) => Delay::Quantile(Latencies::new(MAX_OPERATIONS, latencies.quantile)),
        };
        Self::with(delay, budget, self.is_idempotent)
    }

    /// Returns the time after which a second attempt at this operation is made, if it is known.
    pub fn delay(&self, operation: &str) -> Option<Duration> {
        match &self.shared.delay {
            Delay::Fixed(delay) => Some(*delay),
            Delay::Quantile(latencies) => latencies.find(operation).1,
        }
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> HedgeSnapshot {
        HedgeSnapshot {
            hedged: self.shared.hedged.load(Ordering::Relaxed),
            won: self.shared.won.load(Ordering::Relaxed),
            budget_exhausted: self.shared.budget_exhausted.load(Ordering::Relaxed),
        }
    }
}

impl<S: Clone, P> Layer<S> for HedgeLayer<P> {
    type Service = Hedge<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(inner, Arc::clone(&self.shared), Arc::clone(&self.is_idempotent))
    }
}

// By hand, as a derive would require `P: Clone`.
impl<P> Clone for HedgeLayer<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), is_idempotent: Arc::clone(&self.is_idempotent) }
    }
}

impl<P> fmt::Debug for HedgeLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
