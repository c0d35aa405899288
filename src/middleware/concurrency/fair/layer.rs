use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::Fair;
use crate::middleware::concurrency::permits::Permits;
use crate::middleware::concurrency::shared::Shared;
use crate::middleware::concurrency::{ConcurrencySnapshot, Fixed};

/// Limits how many calls run at a time, in fair shares of tenants. Made by [`ConcurrencyLayer::per_tenant`]; see the
/// [module](super).
///
/// Clones of the layer, and all services that they make, share the permits.
///
/// [`ConcurrencyLayer::per_tenant`]: crate::layers::ConcurrencyLayer::per_tenant
pub struct FairLayer<L = Fixed> {
    shared: Arc<Shared<L>>,
    max_wait: Duration,
}

/// The permits and the waiting calls of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantSnapshot {
    /// Permits in use by its calls.
    pub in_flight: usize,
    /// Calls that wait for a permit.
    pub waiting: usize,
}

impl FairLayer {
    /// Changes the limit. If more calls run than it allows, none starts until enough of them have ended; if it allows more, those
    /// who wait start at once.
    pub fn set_limit(&self, limit: usize) {
        self.shared.set_limit(limit);
    }
}

impl<L> FairLayer<L> {
    pub(in super::super) fn new(permits: usize, limit: L, max_wait: Duration, max_waiting: usize) -> Self {
        Self { shared: Shared::new(Permits::new(permits, max_waiting), limit), max_wait }
    }

    /// Returns the current limit, and the calls that run and wait.
    pub fn snapshot(&self) -> ConcurrencySnapshot {
        self.shared.snapshot()
    }

    /// Returns the calls of a tenant that run and wait; `None` is for requests without a tenant.
    pub fn tenant_snapshot(&self, tenant: Option<&str>) -> TenantSnapshot {
        let (in_flight, waiting) = self.shared.permits.tenant_counts(tenant);
        TenantSnapshot { in_flight, waiting }
    }
}

impl<S, L> Layer<S> for FairLayer<L> {
    type Service = Fair<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Fair::new(inner, Arc::clone(&self.shared), self.max_wait)
    }
}

// Not derived, which would need `L: Clone`.
impl<L> Clone for FairLayer<L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), max_wait: self.max_wait }
    }
}

impl<L> fmt::Debug for FairLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairLayer").field("snapshot", &self.snapshot()).field("max_wait", &self.max_wait).finish()
    }
}
