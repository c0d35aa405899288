use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::ConcurrencyLimit;
use super::fair::FairLayer;
use super::gate::Gate;
use super::limit::{Adaptive, Algorithm, Fixed};
use super::shared::{Places, Shared};

/// Lets so many calls run at a time. See the [module](super).
///
/// Clones, and all the services that they make, share the places.
pub struct ConcurrencyLayer<L = Fixed> {
    shared: Arc<Shared<L>>,
}

impl ConcurrencyLayer {
    /// Lets `limit` calls run at a time. 0 lets nothing through until it is [raised](Self::set_limit).
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { places: Gate::new(limit), limit: Fixed }) }
    }

    /// From now on `limit` calls may run at a time. Where more do, none is begun until enough have ended; where there
    /// is room now, those who wait are let in.
    pub fn set_limit(&self, limit: usize) {
        self.shared.places.resize(limit);
        self.shared.places.let_in();
    }

    /// Shares the places out among tenants: while others wait, none holds more than its share. Calls that find no place
    /// wait in `call`, each for up to `max_wait` or until its deadline, and up to `max_waiting` of them. See
    /// [`fair`](super::fair).
    #[must_use]
    pub fn per_tenant(&self, max_wait: Duration, max_waiting: usize) -> FairLayer {
        FairLayer::new(self.limit(), Fixed, max_wait, max_waiting)
    }
}

impl<A: Algorithm> ConcurrencyLayer<Adaptive<A>> {
    /// Lets as many calls run at a time as `algorithm` says.
    pub fn adaptive(algorithm: A) -> Self {
        let places = Gate::new(algorithm.limit());
        Self { shared: Arc::new(Shared { places, limit: Adaptive::new(algorithm) }) }
    }

    /// Looks at the algorithm. Calls that end meanwhile wait for it, so look quickly.
    pub fn with_algorithm<T>(&self, look: impl FnOnce(&A) -> T) -> T {
        self.shared.limit.with(look)
    }

    /// Shares the places out among tenants, as [`per_tenant`](ConcurrencyLayer::per_tenant) of a fixed limit does. The
    /// algorithm goes on from what this layer's has learnt so far, on its own.
    #[must_use]
    pub fn per_tenant(&self, max_wait: Duration, max_waiting: usize) -> FairLayer<Adaptive<A>>
    where
        A: Clone,
    {
        let algorithm = self.with_algorithm(A::clone);
        FairLayer::new(algorithm.limit(), Adaptive::new(algorithm), max_wait, max_waiting)
    }
}

impl<L> ConcurrencyLayer<L> {
    /// How many calls may run at a time, as of now.
    pub fn limit(&self) -> usize {
        self.shared.places.limit()
    }

    /// How many places are taken: calls that run, and services that are ready and have not been called.
    pub fn in_flight(&self) -> usize {
        self.shared.places.inside()
    }

    /// How many services wait for a place in `poll_ready`.
    pub fn waiting(&self) -> usize {
        self.shared.places.waiting()
    }
}

impl<S, L> Layer<S> for ConcurrencyLayer<L> {
    type Service = ConcurrencyLimit<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::new(inner, Arc::clone(&self.shared))
    }
}

// By hand: a clone needs no `L: Clone`, the places are shared.
impl<L> Clone for ConcurrencyLayer<L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<L> fmt::Debug for ConcurrencyLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLayer")
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .finish()
    }
}
