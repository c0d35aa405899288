use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::flights::Counts;
use super::shared::Shared;
use super::{Coalesce, CoalesceSnapshot, Flights};

/// Lets equal requests in flight share one run. See the [module](super).
///
/// Clones share their runs. [`min_run_time`](Self::min_run_time) begins with new ones, so configure first and clone after.
/// `L` is the [`Flights`] of the service that the layer is applied to.
pub struct CoalesceLayer<P, L> {
    shared: Arc<Shared<P, L>>,
}

impl<P, K, F, T, E> CoalesceLayer<P, Flights<K, F, T, E>> {
    /// Creates a layer that shares runs among requests with equal keys.
    pub fn new(cache_key: P) -> Self {
        Self::counted_by(cache_key, &CoalesceHandle::default())
    }

    /// Creates a layer that shares its counts with the others of `handle`.
    pub(crate) fn counted_by(cache_key: P, handle: &CoalesceHandle) -> Self {
        let flights = Arc::new(Flights::new(Arc::clone(&handle.counts)));
        Self { shared: Arc::new(Shared { cache_key, min_run_time: None, flights }) }
    }

    /// Extends the deadline of each run to at least this time from its start, so that it does not end with a leader whose
    /// deadline is short. The inner service then does not see when the first response is due. Runs of requests without a
    /// deadline have none.
    #[must_use]
    pub fn min_run_time(self, time: Duration) -> Self
    where
        P: Clone,
    {
        let cache_key = self.shared.cache_key.clone();
        let flights = Arc::new(Flights::new(Arc::default()));
        Self { shared: Arc::new(Shared { cache_key, min_run_time: Some(time), flights }) }
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        self.shared.flights.counts.snapshot()
    }
}

/// Reads the counts of one or several layers without their type parameters.
#[derive(Clone, Debug, Default)]
pub struct CoalesceHandle {
    counts: Arc<Counts>,
}

impl CoalesceHandle {
    /// Returns the current counts.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        self.counts.snapshot()
    }
}

impl<S, P, L> Layer<S> for CoalesceLayer<P, L> {
    type Service = Coalesce<S, P, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce::new(inner, Arc::clone(&self.shared))
    }
}

// By hand, as a derive would require `P: Clone`.
impl<P, L> Clone for CoalesceLayer<P, L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P, L: fmt::Debug> fmt::Debug for CoalesceLayer<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceLayer").field("flights", &self.shared.flights).finish_non_exhaustive()
    }
}
