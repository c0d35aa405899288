use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::fair::FairLayer;
use super::limit::{Adaptive, Algorithm, Fixed, Limit};
use super::permits::Permits;
use super::{ConcurrencyLimit, ConcurrencySnapshot};
use crate::middleware::derive::derive_clone;

/// Limits how many calls run at a time. See the [module](super).
///
/// Clones of the layer, and all services that they make, share the permits.
#[derive(Debug)]
pub struct ConcurrencyLayer<L = Fixed> {
    permits: Arc<Permits<L>>,
}

impl ConcurrencyLayer {
    /// Lets up to `limit` calls run at a time. 0 lets none run until the limit is [raised](Self::set_limit).
    pub fn new(limit: usize) -> Self {
        Self { permits: Permits::new(limit, usize::MAX, Fixed) }
    }

    /// Changes the limit. If it is below the number of running calls, no call starts until enough of them have ended. If it
    /// is raised, waiting calls start at once.
    pub fn set_limit(&self, limit: usize) {
        self.permits.resize(limit);
        self.permits.grant();
    }

    /// Shares the permits fairly among tenants. Calls without a permit wait in `call`, each for up to `max_wait` or until its
    /// deadline, and up to `max_waiting` of them. See [`fair`](super::fair).
    pub fn per_tenant(&self, max_wait: Duration, max_waiting: usize) -> FairLayer {
        FairLayer::new(self.snapshot().limit, Fixed, max_wait, max_waiting)
    }
}

impl<A: Algorithm> ConcurrencyLayer<Adaptive<A>> {
    /// Lets as many calls run at a time as `algorithm` allows.
    pub fn adaptive(algorithm: A) -> Self {
        Self { permits: Permits::new(algorithm.limit(), usize::MAX, Adaptive::new(algorithm)) }
    }

    /// Reads the algorithm. Calls that end meanwhile block, so be quick.
    pub fn with_algorithm<T>(&self, read: impl FnOnce(&A) -> T) -> T {
        read(&self.permits.limit.algorithm.lock())
    }

    /// Shares the permits fairly among tenants, as [`per_tenant`](ConcurrencyLayer::per_tenant) of a fixed limit does. The new
    /// layer starts from what this one has learned, and learns on its own.
    pub fn per_tenant(&self, max_wait: Duration, max_waiting: usize) -> FairLayer<Adaptive<A>>
    where
        A: Clone,
    {
        let algorithm = self.with_algorithm(A::clone);
        FairLayer::new(algorithm.limit(), Adaptive::new(algorithm), max_wait, max_waiting)
    }
}

impl<L: Limit> ConcurrencyLayer<L> {
    /// Returns the current limit, and the calls that run and wait.
    pub fn snapshot(&self) -> ConcurrencySnapshot {
        self.permits.snapshot()
    }
}

impl<S, L: Limit> Layer<S> for ConcurrencyLayer<L> {
    type Service = ConcurrencyLimit<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyLimit::new(inner, Arc::clone(&self.permits))
    }
}

derive_clone!(ConcurrencyLayer::<L> { permits });
