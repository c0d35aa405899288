use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::call::CallGuard;
use super::settings::Settings;
use super::snapshot::{CircuitSnapshot, CircuitState};
use super::state_machine::{Generation, Outcome, StateMachine, Transition};
use super::tenants::{TenantCircuits, TenantLimits};
use crate::middleware::clock;
use crate::sync::Mutex;

/// One circuit, shared by a layer, its clones and their services.
#[derive(Debug)]
pub struct Circuit {
    name: Box<str>,
    pub(super) settings: Settings,
    state: Mutex<State>,
    /// Notified when `poll_ready` has reason to look at the circuit again.
    pub(super) changed: Arc<Notify>,
    /// The circuit of the operation, if this is a tenant's. It may be locked before this one, and not after.
    operation: Option<Weak<Circuit>>,
}

#[derive(Debug)]
struct State {
    machine: StateMachine,
    rejected: u64,
    /// The circuits of tenants, if this is an operation's and they have their own.
    tenants: Option<TenantCircuits>,
}

impl Circuit {
    pub(super) fn new(name: impl Into<Box<str>>, settings: Settings, tenants: Option<&TenantLimits>) -> Self {
        let machine = StateMachine::new(settings, clock::now());
        let state = State { machine, rejected: 0, tenants: tenants.map(TenantCircuits::new) };
        Self { name: name.into(), settings, state: Mutex::new(state), changed: Arc::default(), operation: None }
    }

    fn for_tenant(self: &Arc<Self>) -> Self {
        Self { operation: Some(Arc::downgrade(self)), ..Self::new(&*self.name, self.settings, None) }
    }

    pub(super) fn generation(&self) -> Generation {
        self.state.lock().machine.generation
    }

    /// The time until a call is admitted.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.state.lock().machine.retry_after(now)
    }

    /// Admits a call of `tenant`, or returns the time until one can be and counts it as rejected.
    pub(super) fn admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        self.try_admit(tenant, now).inspect_err(|_| self.count_rejection())
    }

    /// Admits a call of `tenant`, or returns the time until one can be. A tenant with a circuit of its own is admitted by
    /// that, unless this one is not closed.
    pub(super) fn try_admit(self: &Arc<Self>, tenant: Option<&Arc<str>>, now: Instant) -> Result<CallGuard, Duration> {
        if let Some(own) = tenant.and_then(|tenant| self.own_circuit(tenant, now)) {
            return own.try_admit(None, now);
        }
        let generation = self.update(|state| state.machine.admit(now))?;
        Ok(CallGuard::new(Arc::clone(self), generation, tenant.cloned()))
    }

    fn own_circuit(&self, tenant: &str, now: Instant) -> Option<Arc<Self>> {
        let State { machine, tenants, .. } = &mut *self.state.lock();
        if machine.is_closed() { tenants.as_mut()?.get(tenant, now) } else { None }
    }

    /// Counts a call as in flight that began before there was this circuit.
    pub(super) fn admit_first(&self) -> Generation {
        self.state.lock().machine.admit_first()
    }

    /// Counts the outcome of a call that was admitted in `generation`. A failure of a tenant's call counts in the tenant's
    /// own circuit if they have some, unless the call was a probe.
    pub(super) fn end(
        self: &Arc<Self>,
        generation: Generation,
        tenant: Option<&Arc<str>>,
        outcome: Outcome,
        now: Instant,
    ) {
        let (own, is_closed) = self.update(|State { machine, tenants, .. }| {
            if let (Some(tenant), Some(tenants)) = (tenant, tenants)
                && outcome.is_bad()
                && machine.is_closed()
                && machine.generation == generation
            {
                machine.end(generation, Outcome::Ignored, now);
                let own = tenants.get_or_create(tenant, || self.for_tenant(), now);
                let generation = own.admit_first();
                return (Some((own, generation)), true);
            }
            machine.end(generation, outcome, now);
            (None, machine.is_closed())
        });
        if let Some((own, generation)) = own {
            own.end(generation, None, outcome, now);
        }
        if self.settings.unready_while_open && !is_closed {
            // The permit of a probe may be free again.
            self.changed.notify_waiters();
        }
    }

    pub(super) fn count_rejection(&self) {
        self.state.lock().rejected += 1;
    }

    /// Whether it is not closed, and calls still come.
    pub(super) fn is_open_and_in_use(&self, now: Instant) -> bool {
        let machine = &mut self.state.lock().machine;
        !machine.is_closed() && !machine.is_idle(now)
    }

    /// Whether removing it loses nothing that matters.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let State { machine, tenants, .. } = &mut *self.state.lock();
        machine.is_idle(now) && tenants.as_ref().is_none_or(TenantCircuits::is_empty)
    }

    pub(super) fn snapshot(&self) -> CircuitSnapshot {
        let now = clock::now();
        let State { machine, rejected, tenants } = &mut *self.state.lock();
        let counts = machine.window.total(now);
        CircuitSnapshot {
            circuit: self.name.to_string(),
            state: machine.state(),
            consecutive_failures: machine.consecutive_failures,
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
            opened: machine.opened,
            rejected: *rejected,
            tenants_open: tenants.as_ref().map_or(0, |tenants| tenants.open(now)),
            tenants_opened: tenants.as_ref().map_or(0, |tenants| tenants.opened),
            retry_after_ms: u64::try_from(machine.retry_after(now).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Changes the state under the lock, and logs the transition that this brings without it.
    fn update<T>(&self, update: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let value = update(&mut state);
        let transition = state.machine.transition.take();
        drop(state);
        if let Some(transition) = transition {
            self.log_transition(transition);
            self.changed.notify_waiters();
            if transition.to == CircuitState::Open
                && let Some(operation) = self.operation.as_ref().and_then(Weak::upgrade)
            {
                operation.tenant_opened();
            }
        }
        value
    }

    /// Counts that a tenant's circuit of this operation has opened, and opens this one if those of enough tenants are open.
    fn tenant_opened(&self) {
        let now = clock::now();
        self.update(|State { machine, tenants, .. }| {
            let Some(tenants) = tenants else { return };
            tenants.opened += 1;
            if machine.is_closed() && tenants.open(now) >= u64::from(tenants.min_open.get()) {
                machine.open("the circuits of several tenants are open", now);
            }
        });
    }

    fn log_transition(&self, Transition { from, to, reason, open_for }: Transition) {
        let (circuit, open_for) = (&*self.name, open_for.map(tracing::field::debug));
        match to {
            CircuitState::Open if self.operation.is_some() => {
                tracing::warn!(circuit, %from, %to, reason, open_for, "circuit opened for one tenant");
            }
            CircuitState::Open => tracing::warn!(circuit, %from, %to, reason, open_for, "circuit opened"),
            CircuitState::HalfOpen => tracing::info!(circuit, %from, %to, reason, "circuit half open"),
            CircuitState::Closed => tracing::info!(circuit, %from, %to, reason, "circuit closed"),
        }
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::{CallGuard, Circuit, CircuitState, Generation, Outcome, Settings};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const FAILURE: Outcome = Outcome::Failure { slow: false };
    const SUCCESS: Outcome = Outcome::Success { slow: false };

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
        circuit.update(|state| state.machine.admit(now))
    }

    fn end(circuit: &Arc<Circuit>, generation: Generation, outcome: Outcome, now: Instant) {
        circuit.end(generation, None, outcome, now);
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
            assert_eq!(circuit.state.lock().machine.state(), CircuitState::HalfOpen);
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
            assert_eq!(circuit.state.lock().machine.state(), CircuitState::HalfOpen);
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
            let state = circuit.state.lock().machine.state();
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
            assert_eq!(circuit.state.lock().machine.state(), CircuitState::Closed);
            assert_eq!(circuit.state.lock().machine.opened, 1);
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
            let counts = circuit.state.lock().machine.window.total(now);
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
            assert_eq!(circuit.state.lock().machine.window.total(due).calls, 1);
        });
    }
}
