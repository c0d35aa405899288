//! Models of threads that use the same circuit, or create one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread;
use tokio::sync::Semaphore;

use super::circuits::{Circuit, Circuits};
use super::future::{Admission, CallGuard, NewKey};
use super::state_machine::{FIRST_GENERATION, Outcome};
use super::{CircuitBreakerConfig, CircuitState};
use crate::error::ErrorKind;

const FAILURE: Outcome = Outcome { failed: true, slow: false };
const SUCCESS: Outcome = Outcome { failed: false, slow: false };

/// A circuit that opens at the first failure, and a time at which it is due for a probe if it opened now.
fn circuit(probes: u32, successes: u32) -> (Arc<Circuit>, Instant, Instant) {
    let config = CircuitBreakerConfig {
        consecutive_failures: Some(1),
        max_probes: probes,
        required_successes: successes,
        ..CircuitBreakerConfig::default()
    };
    let now = Instant::now();
    (Arc::new(Circuit::new("all", config, &Arc::new(Semaphore::new(0)))), now, now + Duration::from_secs(2))
}

/// Admits a call without a guard.
fn admit(circuit: &Circuit, now: Instant) -> Result<u32, Duration> {
    circuit.generation_for_call(now)
}

fn guard(circuit: &Arc<Circuit>, generation: u32) -> CallGuard {
    CallGuard::new(Admission::Circuit { circuit: Arc::clone(circuit), generation, tenant: None })
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
        let thread = thread::spawn(move || admit(&other, due).is_ok());
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
        let thread = thread::spawn(move || open(&other, now));
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
        let thread = thread::spawn(move || {
            if let Ok(generation) = admit(&other, due) {
                drop(guard(&other, generation));
            }
        });
        if let Ok(generation) = admit(&circuit, due) {
            drop(guard(&circuit, generation));
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
        let thread = thread::spawn(move || end(&other, first, FAILURE, due));
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
        let thread = thread::spawn(move || end(&other, late, FAILURE, due));
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
        let config =
            CircuitBreakerConfig { consecutive_failures: None, failure_rate: None, ..CircuitBreakerConfig::default() };
        let now = Instant::now();
        let circuit = Arc::new(Circuit::new("all", config, &Arc::new(Semaphore::new(0))));
        call(&circuit, SUCCESS, now);
        let other = Arc::clone(&circuit);
        let thread = thread::spawn(move || {
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
        let thread = thread::spawn(move || end(&other, late, SUCCESS, now));
        end(&circuit, failing, FAILURE, now);
        let probe = admit(&circuit, due).unwrap();
        end(&circuit, probe, SUCCESS, due);
        call(&circuit, SUCCESS, due);
        thread.join().unwrap();
        assert_eq!(circuit.state.lock().window.total(due).calls, 1);
    });
}
#[test]
fn loom_concurrent_first_failures_of_an_operation_count_in_one_circuit() {
    loom::model(|| {
        let config =
            CircuitBreakerConfig { consecutive_failures: Some(2), max_keys: 2, ..CircuitBreakerConfig::default() };
        let circuits = Arc::new(Circuits::keyed(config));
        let [here, there] = [(); 2].map(|()| {
            let new = NewKey { circuits: Arc::clone(&circuits), key: "a".into(), tenant: None };
            let mut call = CallGuard::new(Admission::NewKey(Box::new(new)));
            call.start(None);
            call
        });
        let thread = thread::spawn(move || there.end(Some(ErrorKind::Unavailable)));
        here.end(Some(ErrorKind::Unavailable));
        thread.join().unwrap();
        let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
        assert_eq!((a.state, a.opened, a.failures), (CircuitState::Open, 1, 2));
    });
}

#[test]
fn loom_the_last_of_enough_open_tenant_circuits_opens_that_of_the_operation() {
    loom::model(|| {
        let config = CircuitBreakerConfig {
            consecutive_failures: Some(1),
            max_keys: 2,
            min_open_tenants: NonZeroU32::new(2),
            ..CircuitBreakerConfig::default()
        };
        let (circuits, now) = (Arc::new(Circuits::keyed(config)), Instant::now());
        let circuit = circuits.get_or_create("a", now).unwrap();
        let failure = Some(Outcome { failed: true, slow: false });
        let other = Arc::clone(&circuit);
        let thread = thread::spawn(move || {
            other.end(FIRST_GENERATION, Some(&"one".into()), failure, now);
        });
        circuit.end(FIRST_GENERATION, Some(&"two".into()), failure, now);
        thread.join().unwrap();
        let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
        assert_eq!((a.state, a.opened, a.tenants_opened), (CircuitState::Open, 1, 2));
    });
}
