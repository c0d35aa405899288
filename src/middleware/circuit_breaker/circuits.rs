use std::fmt::{self, Display};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use super::Circuit;
use super::first::First;
use super::settings::Settings;
use super::status::CircuitStatus;
use super::table::{ByKey, Table};
use super::tenants::TenantLimits;
use crate::request::limits::tenant_key;
use crate::request::operation_table::OperationTable;
use crate::request::{RequestContext, Share};

/// Which circuit a request belongs to.
pub trait Circuits<R> {
    /// The circuit of all requests, where there is one only: it decides before there is a request.
    fn only(&self) -> Option<&Arc<Circuit>>;

    /// The circuit of `request`; or, where it is to have one of its own and nothing is known of the like, what makes it.
    fn of(self: &Arc<Self>, request: &R) -> Result<Arc<Circuit>, Box<First>>;

    /// The tenant whose circuit a failure of `request` counts in, where tenants have circuits of their own.
    #[inline]
    fn tenant_of(&self, request: &R) -> Option<Arc<str>> {
        let _ = request;
        None
    }
}

/// What can be said of circuits without a request.
pub(super) trait Statuses: Send + Sync {
    fn statuses(&self) -> Vec<CircuitStatus>;
}

/// One circuit for all requests.
#[derive(Debug)]
pub struct One(pub(super) Arc<Circuit>);

impl One {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(Circuit::new("all", settings)))
    }
}

impl<R> Circuits<R> for One {
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        Some(&self.0)
    }

    #[inline]
    fn of(self: &Arc<Self>, _request: &R) -> Result<Arc<Circuit>, Box<First>> {
        Ok(Arc::clone(&self.0))
    }
}

impl Statuses for One {
    fn statuses(&self) -> Vec<CircuitStatus> {
        vec![self.0.status()]
    }
}

/// A circuit for each [operation](RequestContext::operation).
#[derive(Debug)]
pub struct PerOperation {
    table: Table<OperationTable<Arc<Circuit>>>,
    /// Where tenants have circuits of their own.
    tenants: Option<TenantLimits>,
}

impl PerOperation {
    pub(super) fn new(settings: Settings, max: usize) -> Self {
        Self { table: Table::new(settings, OperationTable::new(max)), tenants: None }
    }

    pub(super) fn per_tenant(settings: Settings, max: usize, agreeing: NonZeroU32) -> Self {
        let (limits, mut table) = (TenantLimits::new(agreeing), Table::new(settings, OperationTable::new(max)));
        table.rest = Arc::new(Circuit::new("rest", settings).with_tenants(Some(&limits)));
        Self { table, tenants: Some(limits) }
    }

    pub(super) fn settings(&self) -> &Settings {
        self.table.settings()
    }

    pub(super) fn max(&self) -> usize {
        self.table.read().max()
    }

    pub(super) fn agreeing(&self) -> Option<NonZeroU32> {
        self.tenants.as_ref().map(TenantLimits::agreeing)
    }

    // Apart, so that the search for a circuit that is there needs no room for it.
    #[cold]
    #[inline(never)]
    fn unknown(self: &Arc<Self>, operation: &str, request: &impl RequestContext) -> Result<Arc<Circuit>, Box<First>> {
        if self.table.has_room() {
            let tenant = self.tenants.as_ref().and_then(|_| tenant(request)).cloned();
            Err(Box::new(First::new(Arc::clone(self), operation, callers_deadline(request), tenant)))
        } else {
            let rest = &self.table.rest;
            let own = tenant(request).filter(|_| rest.has_tenants()).and_then(|tenant| rest.of_tenant(tenant));
            Ok(own.unwrap_or_else(|| Arc::clone(rest)))
        }
    }

    /// The circuit of an operation of which a call has ended so that it counts; `None` where there is no room for it.
    pub(super) fn make(&self, operation: &str) -> Option<Arc<Circuit>> {
        let circuits = self.table.read();
        let make = || Arc::new(Circuit::new(operation, *self.settings()).with_tenants(self.tenants.as_ref()));
        circuits.find_or_insert(operation, make).map(|(_, circuit)| Arc::clone(circuit))
    }
}

impl<R: RequestContext> Circuits<R> for PerOperation {
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        None
    }

    #[inline]
    fn of(self: &Arc<Self>, request: &R) -> Result<Arc<Circuit>, Box<First>> {
        let operation = request.operation();
        if let Some((_, circuit)) = self.table.read().find(operation) {
            if circuit.has_tenants()
                && let Some(own) = tenant(request).and_then(|tenant| circuit.of_tenant(tenant))
            {
                return Ok(own);
            }
            return Ok(Arc::clone(circuit));
        }
        self.unknown(operation, request)
    }

    #[inline]
    fn tenant_of(&self, request: &R) -> Option<Arc<str>> {
        if self.tenants.is_some() { tenant(request).cloned() } else { None }
    }
}

/// Whose circuit a request goes by. Those that are served from the common share are nobody's in particular.
#[inline]
fn tenant(request: &impl RequestContext) -> Option<&Arc<str>> {
    let tenant = tenant_key(request)?;
    if request.share().is_some_and(Share::is_common) { None } else { Some(tenant) }
}

/// The deadline of a request, where its caller chose it.
#[inline]
pub(super) fn callers_deadline(request: &impl RequestContext) -> Option<Instant> {
    if request.deadline_is_server_timeout() { None } else { request.deadline() }
}

impl Statuses for PerOperation {
    fn statuses(&self) -> Vec<CircuitStatus> {
        self.table.statuses()
    }
}

/// A circuit for each key that a closure finds in the request.
pub struct PerKey<K, F> {
    table: Table<ByKey<K>>,
    pub(super) key: F,
}

impl<K, F> PerKey<K, F> {
    pub(super) fn new(settings: Settings, max: usize, key: F) -> Self {
        Self { table: Table::new(settings, ByKey::new(max)), key }
    }

    pub(super) fn settings(&self) -> &Settings {
        self.table.settings()
    }
}

impl<R, K, F> Circuits<R> for PerKey<K, F>
where
    K: Hash + Eq + Display,
    F: Fn(&R) -> Option<K>,
{
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        None
    }

    fn of(self: &Arc<Self>, request: &R) -> Result<Arc<Circuit>, Box<First>> {
        let table = &self.table;
        let Some(key) = (self.key)(request) else { return Ok(Arc::clone(&table.rest)) };
        if let Some(circuit) = table.read().get(&key) {
            return Ok(Arc::clone(circuit));
        }
        let own = if table.has_room() {
            let name = key.to_string();
            let make = || Arc::new(Circuit::new(name, *table.settings()));
            table.write().get_or_insert(key, make).map(Arc::clone)
        } else {
            None
        };
        Ok(own.unwrap_or_else(|| Arc::clone(&table.rest)))
    }
}

impl<K: Send + Sync, F: Send + Sync> Statuses for PerKey<K, F> {
    fn statuses(&self) -> Vec<CircuitStatus> {
        self.table.statuses()
    }
}

impl<K: fmt::Debug, F> fmt::Debug for PerKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").field("table", &self.table).finish_non_exhaustive()
    }
}
