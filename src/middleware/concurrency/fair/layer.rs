use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::shares::Shares;
use super::{Fair, Line};
use crate::middleware::concurrency::Fixed;
use crate::middleware::concurrency::shared::{Places, Shared};

/// Shares places out among tenants. Made by [`ConcurrencyLayer::per_tenant`]; see the [module](super).
///
/// Clones, and all the services that they make, share the places.
///
/// [`ConcurrencyLayer::per_tenant`]: crate::layers::ConcurrencyLayer::per_tenant
pub struct FairLayer<L = Fixed> {
    line: Line<L>,
}

impl FairLayer {
    /// From now on `limit` calls may run at a time. Where more do, none is begun until enough have ended; where there
    /// is room now, those who wait are let in.
    pub fn set_limit(&self, limit: usize) {
        self.line.shared.places.resize(limit);
        self.line.shared.places.let_in();
    }
}

impl<L> FairLayer<L> {
    pub(in super::super) fn new(places: usize, limit: L, max_wait: Duration, max_waiting: usize) -> Self {
        let shared = Shared { places: Shares::new(places, max_waiting), limit };
        Self { line: Line { shared: Arc::new(shared), max_wait } }
    }

    /// How many calls may run at a time, as of now.
    pub fn limit(&self) -> usize {
        self.line.shared.places.limit()
    }

    /// How many calls have a place.
    pub fn in_flight(&self) -> usize {
        self.line.shared.places.inside()
    }

    /// How many calls wait for a place.
    pub fn waiting(&self) -> usize {
        self.line.shared.places.waiting()
    }

    /// How many places the tenant has, and how many of its calls wait. `None` is for requests without a tenant.
    pub fn tenant(&self, tenant: Option<&str>) -> (usize, usize) {
        self.line.shared.places.tenant(tenant)
    }
}

impl<S, L> Layer<S> for FairLayer<L> {
    type Service = Fair<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Fair::new(inner, self.line.clone())
    }
}

// By hand: a clone needs no `L: Clone`, the places are shared.
impl<L> Clone for FairLayer<L> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone() }
    }
}

impl<L> fmt::Debug for FairLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairLayer")
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .field("max_wait", &self.line.max_wait)
            .finish()
    }
}
