use std::fmt::{self, Display};
use std::hash::Hash;
use std::sync::Arc;

use super::Circuit;
use super::first::First;
use super::settings::Settings;
use super::status::CircuitStatus;
use super::table::{ByKey, Table};
use crate::layers::operations::Operations;
use crate::service::RequestContext;

/// Which circuit a request belongs to.
pub trait Circuits<R> {
    /// The circuit of all requests, where there is one only: it decides before there is a request.
    fn only(&self) -> Option<&Arc<Circuit>>;

    /// The circuit of `request`; or, where it is to have one of its own and nothing is known of the like, what makes it.
    fn of(self: &Arc<Self>, request: &R) -> Result<Arc<Circuit>, Box<First>>;
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
pub struct PerOperation(Table<Operations<Arc<Circuit>>>);

impl PerOperation {
    pub(super) fn new(settings: Settings, max: usize) -> Self {
        Self(Table::new(settings, Operations::new(max)))
    }

    pub(super) fn settings(&self) -> &Settings {
        self.0.settings()
    }

    // Apart, so that the search for a circuit that is there needs no room for it.
    #[cold]
    #[inline(never)]
    fn unknown(self: &Arc<Self>, operation: &str, request: &impl RequestContext) -> Result<Arc<Circuit>, Box<First>> {
        if self.0.has_room() {
            Err(Box::new(First::new(Arc::clone(self), operation, request.deadline())))
        } else {
            Ok(Arc::clone(&self.0.rest))
        }
    }

    /// The circuit of an operation of which a call has ended so that it counts; `None` where there is no room for it.
    pub(super) fn make(&self, operation: &str) -> Option<Arc<Circuit>> {
        let circuits = self.0.read();
        let make = || Arc::new(Circuit::new(operation, *self.settings()));
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
        if let Some((_, circuit)) = self.0.read().find(operation) {
            return Ok(Arc::clone(circuit));
        }
        self.unknown(operation, request)
    }
}

impl Statuses for PerOperation {
    fn statuses(&self) -> Vec<CircuitStatus> {
        self.0.statuses()
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
