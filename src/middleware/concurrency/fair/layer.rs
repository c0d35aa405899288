use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::Fair;
use crate::middleware::concurrency::limit::Limit;
use crate::middleware::concurrency::permits::Permits;
use crate::middleware::concurrency::{ConcurrencySnapshot, Fixed};
use crate::middleware::derive::derive_clone;

/// Limits how many calls run at a time, in fair shares of tenants. Made by [`ConcurrencyLayer::per_tenant`]; see the
/// [module](super).
///
/// Clones of the layer, and all services that they make, share the permits.
///
/// [`ConcurrencyLayer::per_tenant`]: crate::layers::ConcurrencyLayer::per_tenant
#[derive(Debug)]
#[must_use]
pub struct FairLayer<L = Fixed> {
    permits: Arc<Permits<L>>,
    max_wait: Duration,
}

impl FairLayer {
    /// Changes the limit. If it is below the number of running calls, no call starts until enough of them have ended. If it
    /// is raised, waiting calls start at once.
    pub fn set_limit(&self, limit: usize) {
        self.permits.resize(limit);
        self.permits.grant();
    }
}

impl<L: Limit> FairLayer<L> {
    pub(in super::super) fn new(permits: usize, limit: L, max_wait: Duration, max_waiting: usize) -> Self {
        Self { permits: Permits::new(permits, max_waiting, limit), max_wait }
    }

    /// Returns the current limit, and the calls that run and wait.
    pub fn snapshot(&self) -> ConcurrencySnapshot {
        self.permits.snapshot()
    }

    /// Returns the current limit of all tenants, and the calls of one that run and wait; `None` is for requests without a tenant.
    pub fn tenant_snapshot(&self, tenant: Option<&str>) -> ConcurrencySnapshot {
        self.permits.tenant_snapshot(tenant)
    }
}

impl<S, L: Limit> Layer<S> for FairLayer<L> {
    type Service = Fair<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Fair::new(inner, Arc::clone(&self.permits), self.max_wait)
    }
}

derive_clone!(FairLayer::<L> { permits, max_wait });
