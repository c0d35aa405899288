//! Checks every order in which callers check, put back and leave while the run wakes them.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{Check, Flight, Run};
use crate::request::Priority;

type NumberFlight = Flight<(), u32, ()>;

/// Wakes by a condition: loom's `unpark` is lost on a thread that has not parked yet.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    condition: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.condition.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.condition.notify_one();
    }
}

fn run() -> Run<u32, ()> {
    Box::pin(std::future::pending())
}

/// A flight with two callers that has started.
fn flight() -> Arc<NumberFlight> {
    let flight = Arc::new(NumberFlight::new((), 0, Priority::Normal));
    assert_eq!(flight.join(), Some(1));
    flight.start(run());
    flight
}

/// Checks until there is an outcome, like a task that is polled when it is woken. The run ends once `done` is set.
fn wait(flight: &NumberFlight, caller: usize, done: &AtomicBool) -> u32 {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    loop {
        let outcome = match flight.check(caller, &waker) {
            Check::Return(outcome) => outcome,
            Check::Poll(_) if done.load(Ordering::SeqCst) => flight.end_and_return(Some(Ok(7))),
            Check::Poll(run) => {
                flight.put_back(run);
                signal.wait();
                continue;
            }
            Check::Wait => {
                signal.wait();
                continue;
            }
        };
        match outcome {
            Some(Ok(response)) => return response,
            other => panic!("{other:?}"),
        }
    }
}

/// The work: ends and wakes the flight.
fn work(flight: &Arc<NumberFlight>, done: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (flight, done) = (Arc::clone(flight), Arc::clone(done));
    thread::spawn(move || {
        done.store(true, Ordering::SeqCst);
        Waker::from(flight).wake();
    })
}

#[test]
fn loom_all_callers_get_the_outcome() {
    loom::model(|| {
        let (flight, done) = (flight(), Arc::new(AtomicBool::new(false)));
        let work = work(&flight, &done);
        let other = {
            let (flight, done) = (Arc::clone(&flight), Arc::clone(&done));
            thread::spawn(move || wait(&flight, 1, &done))
        };
        assert_eq!(wait(&flight, 0, &done), 7);
        assert_eq!(other.join().unwrap(), 7);
        work.join().unwrap();
    });
}

#[test]
fn loom_a_wake_is_not_lost_with_a_caller_that_leaves() {
    loom::model(|| {
        let (flight, done) = (flight(), Arc::new(AtomicBool::new(false)));
        let work = work(&flight, &done);
        let leaves = {
            let (flight, done) = (Arc::clone(&flight), Arc::clone(&done));
            thread::spawn(move || {
                // Polls once and is dropped.
                match flight.check(0, &Waker::from(Arc::new(Signal::default()))) {
                    Check::Poll(_) if done.load(Ordering::SeqCst) => drop(flight.end_and_return(Some(Ok(7)))),
                    Check::Poll(run) => flight.put_back(run),
                    Check::Return(_) | Check::Wait => {}
                }
                assert!(flight.leave(0).is_none(), "another caller waits");
            })
        };
        assert_eq!(wait(&flight, 1, &done), 7);
        leaves.join().unwrap();
        work.join().unwrap();
        assert!(flight.leave(1).is_none(), "the run has ended");
    });
}

#[test]
fn loom_the_last_caller_to_leave_gets_the_run() {
    loom::model(|| {
        let (flight, cancelled) = (flight(), Arc::new(AtomicUsize::new(0)));
        let leave = |caller: usize| {
            let (flight, cancelled) = (Arc::clone(&flight), Arc::clone(&cancelled));
            thread::spawn(move || {
                if let Check::Poll(run) = flight.check(caller, &Waker::from(Arc::new(Signal::default()))) {
                    flight.put_back(run);
                }
                cancelled.fetch_add(usize::from(flight.leave(caller).is_some()), Ordering::SeqCst);
            })
        };
        let (first, second) = (leave(0), leave(1));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(cancelled.load(Ordering::SeqCst), 1);
        assert_eq!(flight.join(), None);
    });
}
