use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::Hedge;
use super::latency::Latencies;
use crate::middleware::derive::{derive_clone, derive_debug};
use crate::middleware::retry::Budget;
use crate::sync::Mutex;

/// Makes a second attempt at slow calls. See the [module](super).
///
/// Clones share the budget, the latencies and the counts.
#[must_use]
pub struct HedgeLayer<P> {
    policy: Policy,
    is_idempotent: Arc<P>,
}

derive_clone!(HedgeLayer::<P> { policy, is_idempotent });
derive_debug!(HedgeLayer::<P> { policy });

/// When second attempts are made. Clones share the budget, the latencies and the counts.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) delay: Delay,
    pub(super) budget: Budget,
    pub(super) counts: Arc<Mutex<HedgeSnapshot>>,
}

/// The time between a call and its second attempt.
#[derive(Clone, Debug)]
pub(super) enum Delay {
    Fixed(Duration),
    Quantile(Arc<Latencies>),
}

impl Delay {
    fn quantile(quantile: f64) -> Self {
        Self::Quantile(Arc::new(Latencies::new(MAX_OPERATIONS, quantile)))
    }
}

/// The state of a [`HedgeLayer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize))]
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
        let policy = Policy { delay: Delay::quantile(0.95), budget: Budget::new(0.05, 10), counts: Arc::default() };
        Self { policy, is_idempotent: Arc::new(is_idempotent) }
    }

    /// Makes the second attempt when a call takes longer than this quantile of the latencies of its operation. There is none
    /// until some 100 of them have succeeded.
    ///
    /// # Panics
    /// If the quantile is not above 0 and below 1.
    #[track_caller]
    pub fn after_quantile(mut self, quantile: f64) -> Self {
        assert!(quantile > 0.0 && quantile < 1.0, "a quantile must be above 0 and below 1");
        self.policy.delay = Delay::quantile(quantile);
        self
    }

    /// Makes the second attempt when a call takes longer than this.
    pub fn after(mut self, delay: Duration) -> Self {
        self.policy.delay = Delay::Fixed(delay);
        self
    }

    /// Sets the budget of second attempts, which several layers may share.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.policy.budget = budget;
        self
    }

    /// Returns the time after which a second attempt at this operation is made, if it is known.
    pub fn delay(&self, operation: &str) -> Option<Duration> {
        match &self.policy.delay {
            Delay::Fixed(delay) => Some(*delay),
            Delay::Quantile(latencies) => latencies.find(operation).1,
        }
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> HedgeSnapshot {
        *self.policy.counts.lock()
    }
}

impl<S: Clone, P> Layer<S> for HedgeLayer<P> {
    type Service = Hedge<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(inner, Arc::new(self.policy.clone()), Arc::clone(&self.is_idempotent))
    }
}
