use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::{Coalesce, CoalesceSnapshot, Flights};
use crate::middleware::derive::{derive_clone, derive_debug};
use crate::sync::Mutex;

/// Lets equal requests in flight share one run. See the [module](super).
///
/// Clones share their runs. [`min_run_time`](Self::min_run_time) begins with new ones, so configure first and clone after.
/// `L` is the [`Flights`] of the service that the layer is applied to.
#[must_use]
pub struct CoalesceLayer<P, L> {
    cache_key: Arc<P>,
    flights: Arc<L>,
}

impl<P, K, T, E> CoalesceLayer<P, Flights<K, T, E>> {
    /// Creates a layer that shares runs among requests with equal keys.
    pub fn new(cache_key: P) -> Self {
        Self::counted_by(cache_key, &CoalesceHandle::default())
    }

    /// Creates a layer that shares its counts with the others of `handle`.
    pub(crate) fn counted_by(cache_key: P, handle: &CoalesceHandle) -> Self {
        let flights = Flights::new(None, Arc::clone(&handle.counts));
        Self { cache_key: Arc::new(cache_key), flights: Arc::new(flights) }
    }

    /// Extends the deadline of each run to at least this time from its start, so that it does not end with a leader whose
    /// deadline is short. The inner service then does not see when the first response is due. Runs of requests without a
    /// deadline have none.
    pub fn min_run_time(self, time: Duration) -> Self {
        Self { flights: Arc::new(Flights::new(Some(time), Arc::default())), ..self }
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        *self.flights.counts.lock()
    }
}

/// Reads the counts of one or several layers without their type parameters.
#[derive(Clone, Debug, Default)]
pub struct CoalesceHandle {
    counts: Arc<Mutex<CoalesceSnapshot>>,
}

impl CoalesceHandle {
    /// Returns the current counts.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        *self.counts.lock()
    }
}

impl<S, P, L> Layer<S> for CoalesceLayer<P, L> {
    type Service = Coalesce<S, P, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce::new(inner, Arc::clone(&self.cache_key), Arc::clone(&self.flights))
    }
}

derive_clone!(CoalesceLayer::<P, L> { cache_key, flights });
derive_debug!(CoalesceLayer::<P, L> { flights } where L: Debug);
