use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tower_layer::Layer;

use super::Hedge;
use super::latency::Latencies;
use crate::middleware::retry::Budget;

/// Makes a second attempt where the first takes long. See the [module](super).
///
/// Clones share the budget, the latencies and the counts. The methods that configure the layer begin anew, so configure
/// first and clone after.
pub struct HedgeLayer<P> {
    shared: Arc<Shared>,
    again: Arc<P>,
}

/// What a layer, its clones and their services share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) delay: Delay,
    pub(super) budget: Budget,
    pub(super) hedged: AtomicU64,
    pub(super) won: AtomicU64,
    pub(super) without_budget: AtomicU64,
}

/// After which time the second attempt is made.
#[derive(Debug)]
pub(super) enum Delay {
    Fixed(Duration),
    Learned(Latencies),
}

impl Delay {
    fn learned(share: f64, max_operations: usize) -> Self {
        Self::Learned(Latencies::new(max_operations, share))
    }
}

/// What a [`HedgeLayer`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HedgeStats {
    /// Second attempts that were made.
    pub hedged: u64,
    /// Those of them that answered first.
    pub won: u64,
    /// Second attempts that were not made because the budget was used up. Where there are many the service is slow to all.
    pub without_budget: u64,
}

/// How many operations have latencies of their own if nothing else is said: some 256 KB of them.
const MAX_OPERATIONS: usize = 256;

impl<P> HedgeLayer<P> {
    /// Makes a second attempt at requests for which `again` says that it does no harm, when a call takes longer than 95 in
    /// 100 of the same operation do, for at most a twentieth of the calls and 10 at once.
    pub fn new<R>(again: P) -> Self
    where
        P: Fn(&R) -> bool,
    {
        Self::with(Delay::learned(0.95, MAX_OPERATIONS), Budget::new(0.05, 10), Arc::new(again))
    }

    fn with(delay: Delay, budget: Budget, again: Arc<P>) -> Self {
        let [hedged, won, without_budget] = [const { AtomicU64::new(0) }; 3];
        Self { shared: Arc::new(Shared { delay, budget, hedged, won, without_budget }), again }
    }

    /// Makes the second attempt when the call has taken longer than this share of the calls of the same operation. Until
    /// some 100 of them have ended there is none.
    ///
    /// # Panics
    /// Where the share is not above 0 and below 1.
    #[must_use]
    #[track_caller]
    pub fn after_quantile(self, share: f64) -> Self {
        assert!(share > 0.0 && share < 1.0, "a quantile must be above 0 and below 1");
        Self::with(Delay::learned(share, MAX_OPERATIONS), self.shared.budget.clone(), self.again)
    }

    /// Makes the second attempt when the call has taken this long.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::with(Delay::Fixed(delay), self.shared.budget.clone(), self.again)
    }

    /// Sets what second attempts are paid from. Given to several layers, it is one for all of them.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        let delay = match self.shared.delay {
            Delay::Fixed(delay) => Delay::Fixed(delay),
            Delay::Learned(ref latencies) => Delay::learned(latencies.share(), MAX_OPERATIONS),
        };
        Self::with(delay, budget, self.again)
    }

    /// After which time a second attempt at this operation is made, where that is known.
    pub fn delay(&self, operation: &str) -> Option<Duration> {
        match &self.shared.delay {
            Delay::Fixed(delay) => Some(*delay),
            Delay::Learned(latencies) => latencies.of(operation).1,
        }
    }

    /// What has been done so far.
    pub fn stats(&self) -> HedgeStats {
        HedgeStats {
            hedged: self.shared.hedged.load(Ordering::Relaxed),
            won: self.shared.won.load(Ordering::Relaxed),
            without_budget: self.shared.without_budget.load(Ordering::Relaxed),
        }
    }
}

impl<S: Clone, P> Layer<S> for HedgeLayer<P> {
    type Service = Hedge<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(inner, Arc::clone(&self.shared), Arc::clone(&self.again))
    }
}

// By hand: a clone needs no `P: Clone`, all of it is shared.
impl<P> Clone for HedgeLayer<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), again: Arc::clone(&self.again) }
    }
}

impl<P> fmt::Debug for HedgeLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
