use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::circuits::{CircuitMap, Circuits};
use super::future::CallGuard;
use super::settings::Settings;
use super::snapshot::{CircuitSnapshot, CircuitState};
use super::state_machine::{FIRST_GENERATION, Outcome, StateMachine};
use crate::middleware::clock;
use crate::sync::Mutex;

/// One circuit, shared by a layer, its clones and their services.
#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) name: Box<str>,
    pub(super) settings: Settings,
    pub(super) state: Mutex<StateMachine>,
    /// Notified when `poll_ready` has reason to look at the circuit again.
    pub(super) changed: Arc<Notify>,
    /// The circuits of tenants whose calls of this operation have failed, if tenants have their own.
    tenants: CircuitMap,
    /// The circuits that this one is added to, if it is for a new key.
    pub(super) circuits: Weak<Circuits>,
    /// The circuit of the operation, if this is a tenant's.
    operation: Option<Weak<Circuit>>,
}

/// The name of the circuit that the tenants past the limit share.
const OTHER_TENANTS: &str = "";

impl Circuit {
    pub(super) fn new(name: &str, settings: Settings, tenant_permits: &Arc<Semaphore>) -> Self {
        Self {
            name: name.into(),
            settings,
            state: Mutex::new(StateMachine::new(settings)),
            changed: Arc::default(),
            tenants: CircuitMap::new(Arc::clone(tenant_permits)),
            circuits: Weak::new(),
            operation: None,
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
        let generation = self.update(|machine| machine.admit(now))?;
        Ok(CallGuard::new(Arc::clone(self), generation, tenant.cloned()))
    }

    /// Returns the circuit that admits calls of a tenant instead of this one, if there is one.
    fn circuit_of(&self, tenant: &str, now: Instant) -> Option<Arc<Self>> {
        if self.tenants.is_empty() || self.state.lock().state != CircuitState::Closed {
            return None;
        }
        self.tenants.sweep(now);
        self.tenants.get(tenant).or_else(|| self.tenants.get(OTHER_TENANTS))
    }

    fn get_or_create_circuit_of(self: &Arc<Self>, tenant: &str, now: Instant) -> Arc<Self> {
        self.tenants.get(tenant).unwrap_or_else(|| {
            let permit = self.tenants.reserve(now);
            let name = if permit.is_some() { tenant } else { OTHER_TENANTS };
            let circuit = Self::new(&self.name, self.settings, &self.tenants.permits);
            self.tenants.get_or_add(name, permit, Self { operation: Some(Arc::downgrade(self)), ..circuit }.into())
        })
    }

    /// Ends a call that was admitted in `generation`, and counts its outcome if it is a success or a failure. A failure for
    /// `tenant` counts in the tenant's own circuit instead, unless the call was a probe.
    pub(super) fn end(
        self: &Arc<Self>,
        generation: u32,
        tenant: Option<&Arc<str>>,
        mut outcome: Option<Outcome>,
        now: Instant,
    ) {
        let is_failure = outcome.is_some_and(Outcome::is_bad) && self.state.lock().is_closed_in(generation);
        if let Some(tenant) = tenant.filter(|_| is_failure) {
            self.get_or_create_circuit_of(tenant, now).end_first(None, outcome.take(), now);
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

    /// Ends a call that began before there was this circuit, and counts if the circuit has not changed since.
    pub(super) fn end_first(self: &Arc<Self>, tenant: Option<&Arc<str>>, outcome: Option<Outcome>, now: Instant) {
        self.state.lock().calls_in_flight += 1;
        self.end(FIRST_GENERATION, tenant, outcome, now);
    }

    /// Whether removing it loses nothing that matters.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.tenants.is_empty() && self.state.lock().is_idle(now)
    }

    /// Returns how many tenants' circuits are open, without those whose tenants no longer call.
    fn tenants_open(&self, now: Instant) -> u64 {
        let is_open = |circuit: &Self| {
            let machine = circuit.state.lock();
            machine.state != CircuitState::Closed && !machine.is_idle(now)
        };
        self.tenants.all().iter().filter(|circuit| is_open(circuit)).count() as u64
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
    fn update<T>(&self, update: impl FnOnce(&mut StateMachine) -> T) -> T {
        let mut machine = self.state.lock();
        let (from, generation) = (machine.state, machine.generation);
        let value = update(&mut machine);
        if machine.generation != generation {
            let (to, reason, open_time) = (machine.state, machine.reason, machine.open_time);
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
            let opens = self.settings.min_open_tenants.is_some_and(|min| tenants_open >= u64::from(min.get()));
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

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::{CallGuard, Circuit, CircuitState, Outcome, Settings};
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use tokio::sync::Semaphore;

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
        (Arc::new(Circuit::new("all", settings, &Arc::new(Semaphore::new(0)))), now, now + Duration::from_secs(2))
    }

    /// Admits a call without a guard.
    fn admit(circuit: &Circuit, now: Instant) -> Result<u32, Duration> {
        circuit.update(|machine| machine.admit(now))
    }

    fn end(circuit: &Arc<Circuit>, generation: u32, outcome: Outcome, now: Instant) {
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
            let circuit = Arc::new(Circuit::new("all", settings, &Arc::new(Semaphore::new(0))));
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
