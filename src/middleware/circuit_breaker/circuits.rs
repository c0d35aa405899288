use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::CircuitBreakerConfig;
use super::future::{Admission, CallGuard, NewKey};
use super::snapshot::{CircuitSnapshot, CircuitState};
use super::state_machine::{FIRST_GENERATION, Outcome, StateMachine};
use crate::middleware::clock;
use crate::request::limits::MAX_NAME_BYTES;
use crate::sync::{AtomicU64, Mutex, RwLock};

/// Circuits of tenants, for all operations together.
const MAX_TENANT_CIRCUITS: usize = 4096;

/// How often idle circuits are removed at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The circuits of a layer.
#[derive(Debug)]
pub(super) struct Circuits {
    /// The circuit of all requests, or of those without one of their own.
    pub(super) shared: Arc<Circuit>,
    /// `None` if there is one circuit for all requests.
    by_key: Option<CircuitMap>,
}

impl Circuits {
    pub(super) fn single(config: CircuitBreakerConfig) -> Self {
        Self { shared: Arc::new(Circuit::new("all", config, &Arc::new(Semaphore::new(0)))), by_key: None }
    }

    pub(super) fn keyed(config: CircuitBreakerConfig) -> Self {
        let max_keys = config.max_keys.min(Semaphore::MAX_PERMITS);
        let shared = Circuit::new("rest", config, &Arc::new(Semaphore::new(MAX_TENANT_CIRCUITS)));
        Self { shared: Arc::new(shared), by_key: Some(CircuitMap::new(Arc::new(Semaphore::new(max_keys)))) }
    }

    /// Returns the circuit of all requests, if there is only one. It takes part in readiness, which knows no request.
    pub(super) fn as_single(&self) -> Option<&Arc<Circuit>> {
        self.by_key.is_none().then_some(&self.shared)
    }

    /// Admits a call, or returns the time until one can be.
    pub(super) fn admit(self: &Arc<Self>, key: Option<&str>, tenant: Option<&Arc<str>>) -> Result<CallGuard, Duration> {
        let (now, tenant) = (clock::now(), tenant.filter(|_| self.shared.config.min_open_tenants.is_some()));
        let key = key.filter(|key| key.len() <= MAX_NAME_BYTES);
        let Some((by_key, key)) = self.by_key.as_ref().zip(key) else { return self.shared.admit(tenant, now) };
        match by_key.get(key) {
            Some(circuit) => circuit.admit(tenant, now),
            None if by_key.reserve(now).is_some() => {
                let new = NewKey { circuits: Arc::clone(self), key: key.into(), tenant: tenant.cloned() };
                Ok(CallGuard::new(Admission::NewKey(Box::new(new))))
            }
            None => self.shared.admit(tenant, now),
        }
    }

    /// Returns the circuit of a key, which is created if there is a permit for it.
    pub(super) fn get_or_create(&self, key: &str, now: Instant) -> Option<Arc<Circuit>> {
        let by_key = self.by_key.as_ref()?;
        by_key.get(key).or_else(|| {
            let permit = Some(by_key.reserve(now)?);
            let circuit = Circuit::new(key, self.shared.config, &self.shared.tenants.permits);
            Some(by_key.get_or_add(key, Circuit { _permit: permit, ..circuit }))
        })
    }

    /// Returns the current state of all circuits, by name; the shared one is last.
    pub(super) fn snapshots(&self) -> Vec<CircuitSnapshot> {
        let of_map = |map: &CircuitMap| map.circuits.read().values().map(|circuit| circuit.snapshot()).collect();
        let mut snapshots: Vec<_> = self.by_key.as_ref().map_or_else(Vec::new, of_map);
        snapshots.sort_unstable_by(|a, b| a.circuit.cmp(&b.circuit));
        snapshots.push(self.shared.snapshot());
        snapshots
    }
}

/// Circuits by name, as many as there are permits. Several maps may share the permits.
#[derive(Debug)]
pub(super) struct CircuitMap {
    circuits: RwLock<HashMap<Box<str>, Arc<Circuit>, RandomState>>,
    pub(super) permits: Arc<Semaphore>,
    next_sweep: Mutex<Option<Instant>>,
}

impl CircuitMap {
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { circuits: RwLock::default(), permits, next_sweep: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.circuits.read().is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Circuit>> {
        self.circuits.read().get(name).cloned()
    }

    /// Returns a permit for another circuit, if there is one. If not, idle circuits are removed first.
    pub(super) fn reserve(&self, now: Instant) -> Option<OwnedSemaphorePermit> {
        if self.permits.available_permits() == 0 {
            self.sweep(now);
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Returns the circuit of this name. If there is none, adds the given one.
    pub(super) fn get_or_add(&self, name: &str, circuit: Circuit) -> Arc<Circuit> {
        let mut circuits = self.circuits.write();
        Arc::clone(circuits.entry(name.into()).or_insert_with(|| Arc::new(circuit)))
    }

    /// Removes idle circuits, at most once in a [`SWEEP_INTERVAL`].
    pub(super) fn sweep(&self, now: Instant) {
        let mut next_sweep = self.next_sweep.lock();
        if next_sweep.is_none_or(|next| now >= next) {
            *next_sweep = Some(now + SWEEP_INTERVAL);
            self.circuits.write().retain(|_, circuit| !circuit.is_idle(now));
        }
    }
}

/// One circuit, shared by a layer, its clones and their services.
#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) name: Box<str>,
    pub(super) config: CircuitBreakerConfig,
    pub(super) state: Mutex<StateMachine>,
    /// The generation of `state` while that is closed, and else `u64::MAX`. It is changed with the lock, and read without:
    /// a closed circuit admits every call, on all threads.
    closed_in: AtomicU64,
    /// Notified when `poll_ready` has reason to look at the circuit again.
    pub(super) changed: Arc<Notify>,
    /// The circuits of tenants whose calls of this operation have failed, if tenants have their own.
    pub(super) tenants: CircuitMap,
    /// The circuit of the operation, if this is a tenant's.
    operation: Option<Weak<Circuit>>,
    /// `None` for a circuit that is shared by those past a limit.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The name of the circuit that the tenants past the limit share.
const OTHER_TENANTS: &str = "";

impl Circuit {
    pub(super) fn new(name: &str, config: CircuitBreakerConfig, tenant_permits: &Arc<Semaphore>) -> Self {
        Self {
            name: name.into(),
            config,
            state: Mutex::new(StateMachine::new(config)),
            closed_in: AtomicU64::new(FIRST_GENERATION.into()),
            changed: Arc::default(),
            tenants: CircuitMap::new(Arc::clone(tenant_permits)),
            operation: None,
            _permit: None,
        }
    }

    /// Admits a call, or returns the time until one can be and counts it as rejected. A tenant with a circuit of its own is
    /// admitted by that, unless this one is not closed.
    pub(super) fn admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        let admitted = match tenant.and_then(|tenant| self.circuit_of(tenant, now)) {
            Some(own) => own.try_admit(None, now),
            None => self.try_admit(tenant, now),
        };
        admitted.inspect_err(|_| self.state.lock().rejected += 1)
    }

    /// Admits a call, or returns the time until one can be.
    pub(super) fn try_admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        let generation = self.generation_for_call(now)?;
        Ok(CallGuard::new(Admission::Circuit { circuit: Arc::clone(self), generation, tenant: tenant.cloned() }))
    }

    /// Returns the generation that admits a call, or the time until one does.
    pub(super) fn generation_for_call(&self, now: Instant) -> Result<u32, Duration> {
        u32::try_from(self.closed_in.load(Ordering::Acquire)).or_else(|_| self.update(|machine| machine.admit(now)))
    }

    /// Returns the circuit that admits calls of a tenant instead of this one, if there is one.
    fn circuit_of(&self, tenant: &str, now: Instant) -> Option<Arc<Self>> {
        if self.tenants.is_empty() || self.closed_in.load(Ordering::Acquire) == u64::MAX {
            return None;
        }
        self.tenants.sweep(now);
        self.tenants.get(tenant).or_else(|| self.tenants.get(OTHER_TENANTS))
    }

    fn get_or_create_circuit_of(self: &Arc<Self>, tenant: &str, now: Instant) -> Arc<Self> {
        self.tenants.get(tenant).unwrap_or_else(|| {
            let permit = self.tenants.reserve(now);
            let name = if permit.is_some() { tenant } else { OTHER_TENANTS };
            let operation = Some(Arc::downgrade(self));
            let circuit = Self::new(&self.name, self.config, &self.tenants.permits);
            self.tenants.get_or_add(name, Self { operation, _permit: permit, ..circuit })
        })
    }

    /// Ends a call that was admitted in `generation`, the first one if it began before there was this circuit. Its outcome
    /// counts if it is a success or a failure; a failure for `tenant` counts in the tenant's own circuit instead, unless the
    /// call was a probe.
    pub(super) fn end(
        self: &Arc<Self>,
        generation: u32,
        tenant: Option<&Arc<str>>,
        mut outcome: Option<Outcome>,
        now: Instant,
    ) {
        let is_failure =
            outcome.is_some_and(Outcome::is_bad) && self.closed_in.load(Ordering::Acquire) == u64::from(generation);
        if let Some(tenant) = tenant.filter(|_| is_failure) {
            self.get_or_create_circuit_of(tenant, now).end(FIRST_GENERATION, None, outcome.take(), now);
        }
        let state = self.update(|machine| {
            machine.end(generation, outcome, now);
            machine.state
        });
        if state != CircuitState::Closed {
            // The permit of a probe may be free again.
            self.changed.notify_waiters();
        }
    }

    /// Whether removing it from its map loses nothing that matters. Besides the map, the calls in flight have it, and those
    /// that have found it and are not admitted yet.
    fn is_idle(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) == 1 && self.tenants.is_empty() && self.state.lock().is_idle(now)
    }

    /// Returns how many tenants' circuits are open, without those whose tenants no longer call.
    fn tenants_open(&self, now: Instant) -> u64 {
        let is_open = |own: &&Arc<Self>| {
            let machine = own.state.lock();
            machine.state != CircuitState::Closed && (Arc::strong_count(own) > 1 || !machine.is_idle(now))
        };
        self.tenants.circuits.read().values().filter(is_open).count() as u64
    }

    pub(super) fn snapshot(&self) -> CircuitSnapshot {
        let now = clock::now();
        let tenants_open = self.tenants_open(now);
        let machine = self.state.lock();
        let counts = machine.window.total(now);
        CircuitSnapshot {
            circuit: self.name.to_string(),
            state: machine.state,
            consecutive_failures: machine.consecutive_failures,
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
            opened: machine.opened,
            rejected: machine.rejected,
            tenants_open,
            tenants_opened: machine.tenants_opened,
            retry_after_ms: u64::try_from(machine.retry_after(now).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Changes the state under the lock, and reports the transition that this brings without it.
    pub(super) fn update<T>(&self, update: impl FnOnce(&mut StateMachine) -> T) -> T {
        let mut machine = self.state.lock();
        let (from, generation) = (machine.state, machine.generation);
        let value = update(&mut machine);
        if machine.generation != generation {
            let (to, reason, open_time) = (machine.state, machine.reason, machine.open_time);
            let closed_in = if to == CircuitState::Closed { machine.generation.into() } else { u64::MAX };
            self.closed_in.store(closed_in, Ordering::Release);
            drop(machine);
            self.changed.notify_waiters();
            self.log_transition(from, to, reason, open_time);
            if to == CircuitState::Open
                && let Some(operation) = self.operation.as_ref().and_then(Weak::upgrade)
            {
                operation.tenant_opened();
            }
        }
        value
    }

    /// Counts that a tenant's circuit has opened, and opens this one, the operation's, if those of enough tenants are open.
    fn tenant_opened(&self) {
        let now = clock::now();
        let tenants_open = self.tenants_open(now);
        self.update(|machine| {
            machine.tenants_opened += 1;
            let opens = self.config.min_open_tenants.is_some_and(|min| tenants_open >= u64::from(min.get()));
            if opens && machine.state == CircuitState::Closed {
                machine.open("the circuits of several tenants are open", now);
            }
        });
    }

    fn log_transition(&self, from: CircuitState, to: CircuitState, reason: &str, open_time: Duration) {
        let (circuit, from) = (&*self.name, from.as_str());
        let message = match to {
            CircuitState::Open if self.operation.is_some() => "circuit opened for one tenant",
            CircuitState::Open => "circuit opened",
            CircuitState::HalfOpen => "circuit half open",
            CircuitState::Closed => "circuit closed",
        };
        if to == CircuitState::Open {
            tracing::warn!(circuit, from, to = to.as_str(), reason, open_for = ?open_time, "{message}");
        } else {
            tracing::info!(circuit, from, to = to.as_str(), reason, "{message}");
        }
    }
}
