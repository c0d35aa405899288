use std::fmt::{self, Display};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Circuit;
use super::call::CallGuard;
use super::circuit_map::{CircuitMap, Limit};
use super::settings::Settings;
use super::snapshot::CircuitSnapshot;
use super::tenants::TenantLimits;
use crate::middleware::clock;
use crate::request::limits::{MAX_NAME_BYTES, tenant_key};
use crate::request::{RequestContext, Share};
use crate::sync::Mutex;

/// The circuits of a layer, and which of them a request belongs to.
pub trait Circuits<R> {
    /// Admits a call of `request`, or returns the time until one can be.
    fn admit(self: &Arc<Self>, request: &R) -> Result<CallGuard, Duration>;

    /// The circuit of all requests, if there is only one. It takes part in readiness, which knows no request.
    fn single(&self) -> Option<&Arc<Circuit>> {
        None
    }
}

/// Reads circuits without a request.
pub(super) trait Snapshots: Send + Sync {
    fn snapshots(&self) -> Vec<CircuitSnapshot>;
}

/// One circuit for all requests.
#[derive(Debug)]
pub struct SingleCircuit(pub(super) Arc<Circuit>);

impl SingleCircuit {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(Circuit::new("all", settings, None)))
    }
}

impl<R> Circuits<R> for SingleCircuit {
    fn admit(self: &Arc<Self>, _: &R) -> Result<CallGuard, Duration> {
        self.0.admit(None, clock::now())
    }

    fn single(&self) -> Option<&Arc<Circuit>> {
        Some(&self.0)
    }
}

impl Snapshots for SingleCircuit {
    fn snapshots(&self) -> Vec<CircuitSnapshot> {
        vec![self.0.snapshot()]
    }
}

/// Circuits by key, and one that requests without one of their own share.
#[derive(Debug)]
struct Keyed<K> {
    circuits: Mutex<CircuitMap<K>>,
    shared: Arc<Circuit>,
}

impl<K> Keyed<K> {
    fn new(max: usize, settings: Settings, tenants: Option<&TenantLimits>) -> Self {
        let shared = Arc::new(Circuit::new("rest", settings, tenants));
        Self { circuits: Mutex::new(CircuitMap::new(Limit::new(max))), shared }
    }

    /// All circuits by name, the shared one last.
    fn snapshots(&self) -> Vec<CircuitSnapshot> {
        let circuits: Vec<_> = self.circuits.lock().values().cloned().collect();
        let mut snapshots: Vec<_> = circuits.iter().map(|circuit| circuit.snapshot()).collect();
        snapshots.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        snapshots.push(self.shared.snapshot());
        snapshots
    }
}

/// A circuit for each [operation](RequestContext::operation).
#[derive(Debug)]
pub struct PerOperation {
    pub(super) settings: Settings,
    pub(super) max: usize,
    keyed: Keyed<Box<str>>,
    /// Set if tenants have circuits of their own.
    tenants: Option<TenantLimits>,
}

impl PerOperation {
    /// With circuits for tenants if `min_open_tenants` says how many of them open that of the operation.
    pub(super) fn new(settings: Settings, max: usize, min_open_tenants: Option<NonZeroU32>) -> Self {
        let tenants = min_open_tenants.map(TenantLimits::new);
        Self { settings, max, keyed: Keyed::new(max, settings, tenants.as_ref()), tenants }
    }

    pub(super) fn min_open_tenants(&self) -> Option<NonZeroU32> {
        self.tenants.as_ref().map(|limits| limits.min_open)
    }

    /// Returns the circuit of an operation, which is created if there is room for it.
    pub(super) fn get_or_create(&self, operation: &str) -> Option<Arc<Circuit>> {
        let mut circuits = self.keyed.circuits.lock();
        if let Some(circuit) = circuits.get(operation) {
            return Some(circuit);
        }
        let create = || Circuit::new(operation, self.settings, self.tenants.as_ref());
        circuits.has_room(clock::now()).then(|| circuits.get_or_create(operation.into(), create))
    }
}

impl<R: RequestContext> Circuits<R> for PerOperation {
    fn admit(self: &Arc<Self>, request: &R) -> Result<CallGuard, Duration> {
        let (operation, now) = (request.operation(), clock::now());
        let tenant = self.tenants.as_ref().and_then(|_| tenant(request));
        let mut circuits = self.keyed.circuits.lock();
        let circuit = match circuits.get(operation) {
            Some(circuit) => circuit,
            None if operation.len() <= MAX_NAME_BYTES && circuits.has_room(now) => {
                return Ok(CallGuard::new_operation(Arc::clone(self), operation, tenant.cloned()));
            }
            None => Arc::clone(&self.keyed.shared),
        };
        drop(circuits);
        circuit.admit(tenant, now)
    }
}

/// The tenant whose circuit a request belongs to. Those in the common share have none of their own.
fn tenant(request: &impl RequestContext) -> Option<&Arc<str>> {
    tenant_key(request).filter(|_| !request.share().is_some_and(Share::is_common))
}

/// The deadline of a request if its caller chose it.
pub(super) fn caller_deadline(request: &impl RequestContext) -> Option<Instant> {
    request.deadline().filter(|_| !request.deadline_is_server_timeout())
}

impl Snapshots for PerOperation {
    fn snapshots(&self) -> Vec<CircuitSnapshot> {
        self.keyed.snapshots()
    }
}

/// A circuit for each key that a closure returns for a request.
pub struct PerKey<K, F> {
    pub(super) settings: Settings,
    pub(super) key: F,
    keyed: Keyed<K>,
}

impl<K, F> PerKey<K, F> {
    pub(super) fn new(settings: Settings, max: usize, key: F) -> Self {
        Self { settings, key, keyed: Keyed::new(max, settings, None) }
    }
}

impl<K: Hash + Eq + Display, F> PerKey<K, F> {
    fn circuit(&self, key: K, now: Instant) -> Option<Arc<Circuit>> {
        let mut circuits = self.keyed.circuits.lock();
        if let Some(circuit) = circuits.get(&key) {
            return Some(circuit);
        }
        let name = key.to_string();
        circuits.has_room(now).then(|| circuits.get_or_create(key, || Circuit::new(name, self.settings, None)))
    }
}

impl<R, K, F> Circuits<R> for PerKey<K, F>
where
    K: Hash + Eq + Display,
    F: Fn(&R) -> Option<K>,
{
    fn admit(self: &Arc<Self>, request: &R) -> Result<CallGuard, Duration> {
        let now = clock::now();
        let circuit = (self.key)(request).and_then(|key| self.circuit(key, now));
        circuit.as_ref().unwrap_or(&self.keyed.shared).admit(None, now)
    }
}

impl<K: Send + Sync, F: Send + Sync> Snapshots for PerKey<K, F> {
    fn snapshots(&self) -> Vec<CircuitSnapshot> {
        self.keyed.snapshots()
    }
}

impl<K: fmt::Debug, F> fmt::Debug for PerKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").field("keyed", &self.keyed).finish_non_exhaustive()
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::{PerOperation, Snapshots};
    use crate::error::ErrorKind;
    use crate::middleware::circuit_breaker::call::CallGuard;
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::snapshot::CircuitState;
    use std::sync::Arc;

    #[test]
    fn loom_concurrent_first_failures_of_an_operation_count_in_one_circuit() {
        loom::model(|| {
            let settings = Settings { consecutive_failures: Some(2), ..Settings::default() };
            let circuits = Arc::new(PerOperation::new(settings, 2, None));
            let [mut here, mut there] = [(); 2].map(|()| {
                let mut call = CallGuard::new_operation(Arc::clone(&circuits), "a", None);
                call.start(None);
                call
            });
            let thread = loom::thread::spawn(move || there.end(Some(ErrorKind::Unavailable)));
            here.end(Some(ErrorKind::Unavailable));
            thread.join().unwrap();
            let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.failures), (CircuitState::Open, 1, 2));
        });
    }
}
