use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::Circuit;
use super::settings::Settings;
use super::status::CircuitStatus;
use crate::layers::clock;
use crate::service::RequestContext;

/// Which circuit a request belongs to.
pub trait Circuits<R> {
    /// The circuit of all requests, where there is one only: it decides before there is a request.
    fn only(&self) -> Option<&Arc<Circuit>>;

    /// The circuit of `request`.
    fn of(&self, request: &R) -> Arc<Circuit>;
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
        Self(Arc::new(Circuit::new("all", Arc::new(settings))))
    }
}

impl<R> Circuits<R> for One {
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        Some(&self.0)
    }

    #[inline]
    fn of(&self, _request: &R) -> Arc<Circuit> {
        Arc::clone(&self.0)
    }
}

impl Statuses for One {
    fn statuses(&self) -> Vec<CircuitStatus> {
        vec![self.0.status()]
    }
}

/// A circuit for each [operation](RequestContext::operation).
#[derive(Debug)]
pub struct PerOperation(pub(super) Table<Box<str>>);

impl<R: RequestContext> Circuits<R> for PerOperation {
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        None
    }

    fn of(&self, request: &R) -> Arc<Circuit> {
        let operation = request.operation();
        self.0.of(operation, || operation.into())
    }
}

impl Statuses for PerOperation {
    fn statuses(&self) -> Vec<CircuitStatus> {
        self.0.statuses()
    }
}

/// A circuit for each key that a closure finds in the request.
pub struct PerKey<K, F> {
    pub(super) table: Table<K>,
    pub(super) key: F,
}

impl<R, K, F> Circuits<R> for PerKey<K, F>
where
    K: Hash + Eq + Clone + Display,
    F: Fn(&R) -> Option<K>,
{
    #[inline]
    fn only(&self) -> Option<&Arc<Circuit>> {
        None
    }

    fn of(&self, request: &R) -> Arc<Circuit> {
        match (self.key)(request) {
            Some(key) => self.table.of(&key, || key.clone()),
            None => Arc::clone(&self.table.rest),
        }
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

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The circuits by key, at most `max` of them, and the one that all the other requests share.
#[derive(Debug)]
pub(super) struct Table<K> {
    circuits: RwLock<HashMap<K, Arc<Circuit>>>,
    pub(super) rest: Arc<Circuit>,
    max: usize,
    settings: Arc<Settings>,
    /// When circuits may next be looked through for some to forget.
    next_sweep: Mutex<Option<Instant>>,
}

impl<K> Table<K> {
    pub(super) fn new(settings: Settings, max: usize) -> Self {
        let settings = Arc::new(settings);
        Self {
            circuits: RwLock::default(),
            rest: Arc::new(Circuit::new("rest", Arc::clone(&settings))),
            max,
            settings,
            next_sweep: Mutex::new(None),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        *self.settings
    }

    fn statuses(&self) -> Vec<CircuitStatus> {
        let circuits = self.circuits.read().unwrap_or_else(PoisonError::into_inner);
        let mut statuses: Vec<_> = circuits.values().map(|circuit| circuit.status()).collect();
        drop(circuits);
        statuses.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        statuses.push(self.rest.status());
        statuses
    }
}

impl<K: Hash + Eq + Display> Table<K> {
    fn of<Q>(&self, key: &Q, own: impl FnOnce() -> K) -> Arc<Circuit>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let circuits = self.circuits.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(circuit) = circuits.get(key) {
            return Arc::clone(circuit);
        }
        let full = circuits.len() >= self.max;
        drop(circuits);
        if full && !self.sweep_is_due() {
            return Arc::clone(&self.rest);
        }
        self.insert(own())
    }

    #[cold]
    fn insert(&self, key: K) -> Arc<Circuit> {
        let mut circuits = self.circuits.write().unwrap_or_else(PoisonError::into_inner);
        if circuits.len() >= self.max {
            let now = clock::now();
            // A circuit whose calls are in flight is not forgotten; nobody can take a share of one meanwhile.
            circuits.retain(|_, circuit| Arc::strong_count(circuit) > 1 || !circuit.is_blank(now));
        }
        if circuits.len() >= self.max && !circuits.contains_key(&key) {
            return Arc::clone(&self.rest);
        }
        let name = key.to_string();
        let circuit = circuits.entry(key).or_insert_with(|| Arc::new(Circuit::new(name, Arc::clone(&self.settings))));
        Arc::clone(circuit)
    }

    /// Whether it is on this caller to make room, which somebody does at most once a second.
    fn sweep_is_due(&self) -> bool {
        let Ok(mut next) = self.next_sweep.try_lock() else { return false };
        let now = clock::now();
        let due = next.is_none_or(|next| now >= next);
        if due {
            *next = now.checked_add(SWEEP_INTERVAL);
        }
        due
    }
}
