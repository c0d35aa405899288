use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::call::CallGuard;
use super::settings::Settings;
use super::snapshot::{CircuitSnapshot, CircuitState};
use super::state_machine::{Generation, Outcome, StateMachine, Transition};
use super::tenants::Tenants;
use crate::middleware::clock;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

/// One circuit, shared by a layer, its clones and their services.
#[derive(Debug)]
pub(super) struct Circuit {
    name: Box<str>,
    pub(super) settings: Settings,
    /// The generation while the circuit is closed, else [`NOT_CLOSED`]: a closed circuit admits calls without the lock.
    closed_in: AtomicU32,
    state: Mutex<StateMachine>,
    /// While it is above zero, the circuit is not removed.
    pub(super) calls_in_flight: AtomicU64,
    rejected: AtomicU64,
    /// Notified when `poll_ready` has reason to look at the circuit again.
    pub(super) changed: Arc<Notify>,
    /// The circuits of tenants, if this is an operation's and they have their own.
    tenants: Option<Tenants>,
    /// The circuit of the operation, if this is a tenant's.
    operation: Option<Weak<Circuit>>,
}

const NOT_CLOSED: u32 = u32::MAX;

impl Circuit {
    pub(super) fn new(name: &str, settings: Settings, tenants: Option<Tenants>) -> Self {
        Self {
            name: name.into(),
            settings,
            closed_in: AtomicU32::new(Generation::FIRST.0),
            state: Mutex::new(StateMachine::new(settings, clock::now())),
            calls_in_flight: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            changed: Arc::default(),
            tenants,
            operation: None,
        }
    }

    fn for_tenant(self: &Arc<Self>) -> Self {
        Self { operation: Some(Arc::downgrade(self)), ..Self::new(&self.name, self.settings, None) }
    }

    fn is_closed(&self) -> bool {
        self.closed_generation().is_some()
    }

    pub(super) fn is_in_generation(&self, generation: Generation) -> bool {
        self.closed_generation() == Some(generation) || self.state.lock().generation == generation
    }

    fn closed_generation(&self) -> Option<Generation> {
        let generation = self.closed_in.load(Ordering::Acquire);
        (generation != NOT_CLOSED).then_some(Generation(generation))
    }

    /// The time until a call is admitted.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.state.lock().retry_after(now)
    }

    /// Admits a call, or returns the time until one can be and counts it as rejected. A tenant with a circuit of its own is
    /// admitted by that, unless this one is not closed.
    pub(super) fn admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        let own = match (&self.tenants, tenant) {
            (Some(tenants), Some(tenant)) if self.is_closed() => tenants.get(tenant, now),
            _ => None,
        };
        let circuit = own.as_ref().unwrap_or(self);
        circuit.try_admit(tenant, now).inspect_err(|_| self.count_rejection())
    }

    /// Admits a call, or returns the time until one can be.
    pub(super) fn try_admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        let generation = self.generation_to_admit(now)?;
        Ok(CallGuard::new(Arc::clone(self), generation, tenant.cloned()))
    }

    fn generation_to_admit(&self, now: Instant) -> Result<Generation, Duration> {
        match self.closed_generation() {
            Some(generation) => Ok(generation),
            None => self.update(|machine| machine.admit(now)),
        }
    }

    /// Counts the outcome of a call that was admitted in `generation`, if it is a success or a failure. A failure of a
    /// tenant's call counts in the tenant's own circuit if they have some, unless the call was a probe.
    pub(super) fn end(
        self: &Arc<Self>,
        generation: Generation,
        tenant: Option<&Arc<str>>,
        outcome: Option<Outcome>,
        now: Instant,
    ) {
        if let (Some(tenants), Some(tenant)) = (&self.tenants, tenant)
            && outcome.is_some_and(Outcome::is_bad)
            && self.closed_generation() == Some(generation)
        {
            let own = tenants.get_or_create(tenant, now, || self.for_tenant());
            return own.end(Generation::FIRST, None, outcome, now);
        }
        self.update(|machine| machine.end(generation, outcome, now));
        if self.settings.unready_while_open && !self.is_closed() {
            // The permit of a probe may be free again.
            self.changed.notify_waiters();
        }
    }

    pub(super) fn count_rejection(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is not closed, and calls still come.
    pub(super) fn is_open_and_in_use(&self, now: Instant) -> bool {
        // The lock is released before `is_idle` takes it.
        let state = self.state.lock().state;
        state != CircuitState::Closed && !self.is_idle(now)
    }

    /// Whether removing it loses nothing that matters.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.calls_in_flight.load(Ordering::Relaxed) == 0
            && self.state.lock().is_idle(now)
            && self.tenants.as_ref().is_none_or(Tenants::is_empty)
    }

    pub(super) fn snapshot(&self) -> CircuitSnapshot {
        let now = clock::now();
        let tenants_open = self.tenants.as_ref().map_or(0, |tenants| tenants.open(now));
        let mut machine = self.state.lock();
        let counts = machine.window.total(now);
        CircuitSnapshot {
            circuit: self.name.to_string(),
            state: machine.state,
            consecutive_failures: machine.consecutive_failures,
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
            opened: machine.opened,
            rejected: self.rejected.load(Ordering::Relaxed),
            tenants_open,
            tenants_opened: self.tenants.as_ref().map_or(0, Tenants::opened),
            retry_after_ms: u64::try_from(machine.retry_after(now).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Changes the state under the lock, and logs the transition that this brings without it.
    fn update<T>(&self, update: impl FnOnce(&mut StateMachine) -> T) -> T {
        let mut machine = self.state.lock();
        let value = update(&mut machine);
        let Some(transition) = machine.transition.take() else { return value };
        let closed_in = if transition.to == CircuitState::Closed { machine.generation.0 } else { NOT_CLOSED };
        self.closed_in.store(closed_in, Ordering::Release);
        drop(machine);
        self.log_transition(transition);
        self.changed.notify_waiters();
        if transition.to == CircuitState::Open
            && let Some(operation) = self.operation.as_ref().and_then(Weak::upgrade)
        {
            operation.tenant_opened();
        }
        value
    }

    /// Opens this circuit, which is an operation's, if the circuits of enough tenants are open now that another has opened.
    fn tenant_opened(&self) {
        let now = clock::now();
        if self.tenants.as_ref().is_some_and(|tenants| tenants.count_opened(now)) {
            self.update(|machine| {
                if machine.state == CircuitState::Closed {
                    machine.open("the circuits of several tenants are open", now);
                }
            });
        }
    }

    fn log_transition(&self, Transition { from, to, reason, open_for }: Transition) {
        let (circuit, from, open_for) = (&*self.name, from.as_str(), open_for.map(tracing::field::debug));
        let message = match to {
            CircuitState::Open if self.operation.is_some() => "circuit opened for one tenant",
            CircuitState::Open => "circuit opened",
            CircuitState::HalfOpen => "circuit half open",
            CircuitState::Closed => "circuit closed",
        };
        if to == CircuitState::Open {
            tracing::warn!(circuit, from, to = to.as_str(), reason, open_for, "{message}");
        } else {
            tracing::info!(circuit, from, to = to.as_str(), reason, "{message}");
        }
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::{CallGuard, Circuit, CircuitState, Generation, Outcome, Settings};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const FAILURE: Outcome = Outcome { failed: true, slow: false };
    const SUCCESS: Outcome = Outcome { failed: false, slow: false };

    /// A circuit that opens at the first failure, and a time at which it is due for a probe if it opened now.
    fn circuit(probes: u32, successes: u32) -> (Arc<Circuit>, Instant, Instant) {
        let settings = Settings {
            consecutive_failures: Some(1),
            max_probes: probes,
            required_successes: successes,
            ..Settings::default()
        };
        let now = Instant::now();
        (Arc::new(Circuit::new("all", settings, None)), now, now + Duration::from_secs(2))
    }

    /// Admits a call without a guard.
    fn admit(circuit: &Circuit, now: Instant) -> Result<Generation, Duration> {
        circuit.generation_to_admit(now)
    }

    fn end(circuit: &Arc<Circuit>, generation: Generation, outcome: Outcome, now: Instant) {
        circuit.end(generation, None, Some(outcome), now);
    }

    fn open(circuit: &Arc<Circuit>, now: Instant) {
        call(circuit, FAILURE, now);
    }

    fn call(circuit: &Arc<Circuit>, outcome: Outcome, now: Instant) {
        end(circuit, admit(circuit, now).unwrap(), outcome, now);
    }

    #[test]
    fn loom_of_two_callers_one_is_the_probe() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || admit(&other, due).is_ok());
            let here = admit(&circuit, due).is_ok();
            assert!(here != thread.join().unwrap());
            assert_eq!(circuit.state.lock().state, CircuitState::HalfOpen);
        });
    }

    #[test]
    fn loom_a_call_that_is_admitted_while_the_circuit_opens_is_no_probe() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || open(&other, now));
            let admitted = admit(&circuit, now);
            thread.join().unwrap();
            assert!(admit(&circuit, now).is_err(), "a thread that has seen it open admits a call");
            let probe = admit(&circuit, due).unwrap();
            if let Ok(generation) = admitted {
                end(&circuit, generation, FAILURE, due);
            }
            assert_eq!(circuit.state.lock().state, CircuitState::HalfOpen);
            end(&circuit, probe, SUCCESS, due);
            assert_eq!(circuit.state.lock().state, CircuitState::Closed);
        });
    }

    #[test]
    fn loom_a_dropped_probe_frees_its_permit() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                if let Ok(generation) = admit(&other, due) {
                    drop(CallGuard::new(Arc::clone(&other), generation, None));
                }
            });
            if let Ok(generation) = admit(&circuit, due) {
                drop(CallGuard::new(Arc::clone(&circuit), generation, None));
            }
            thread.join().unwrap();
            assert_eq!(circuit.state.lock().state, CircuitState::HalfOpen);
            assert!(admit(&circuit, due).is_ok(), "the permit is lost");
            assert!(admit(&circuit, due).is_err(), "there is a permit too many");
        });
    }

    #[test]
    fn loom_the_first_of_two_probes_to_end_decides() {
        loom::model(|| {
            let (circuit, now, due) = circuit(2, 1);
            open(&circuit, now);
            let [first, second] = [admit(&circuit, due).unwrap(), admit(&circuit, due).unwrap()];
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || end(&other, first, FAILURE, due));
            end(&circuit, second, SUCCESS, due);
            thread.join().unwrap();
            // The other probe was of a generation that had ended.
            let state = circuit.state.lock().state;
            assert!(matches!(state, CircuitState::Open | CircuitState::Closed), "{state:?}");
            assert_eq!(admit(&circuit, due).is_ok(), state == CircuitState::Closed);
        });
    }

    #[test]
    fn loom_a_failure_of_an_earlier_generation_does_not_open_it() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            let late = admit(&circuit, now).unwrap();
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || end(&other, late, FAILURE, due));
            let probe = admit(&circuit, due).unwrap();
            end(&circuit, probe, SUCCESS, due);
            thread.join().unwrap();
            assert_eq!(circuit.state.lock().state, CircuitState::Closed);
            assert_eq!(circuit.state.lock().opened, 1);
        });
    }

    #[test]
    fn loom_concurrent_successes_and_failures_are_each_counted_once() {
        loom::model(|| {
            let settings = Settings { consecutive_failures: None, failure_rate: None, ..Settings::default() };
            let now = Instant::now();
            let circuit = Arc::new(Circuit::new("all", settings, None));
            call(&circuit, SUCCESS, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                call(&other, SUCCESS, now);
                call(&other, SUCCESS, now + Duration::from_secs(2));
            });
            call(&circuit, FAILURE, now);
            call(&circuit, SUCCESS, now);
            thread.join().unwrap();
            let counts = circuit.state.lock().window.total(now);
            assert_eq!((counts.calls, counts.failures), (5, 1));
        });
    }

    #[test]
    fn loom_a_success_of_an_earlier_generation_is_not_counted() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            call(&circuit, SUCCESS, now);
            let (late, failing) = (admit(&circuit, now).unwrap(), admit(&circuit, now).unwrap());
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || end(&other, late, SUCCESS, now));
            end(&circuit, failing, FAILURE, now);
            let probe = admit(&circuit, due).unwrap();
            end(&circuit, probe, SUCCESS, due);
            call(&circuit, SUCCESS, due);
            thread.join().unwrap();
            assert_eq!(circuit.state.lock().window.total(due).calls, 1);
        });
    }
}
