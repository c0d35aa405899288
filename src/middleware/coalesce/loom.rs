//! Every order in which callers look, give back and leave while the run wakes.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{Flight, Found, Outcome, Run};
use crate::request::Priority;

type OfNumbers = Flight<(), (), u32, ()>;

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

fn run() -> Run<()> {
    Box::pin(Some(()))
}

/// A flight with two callers, begun.
fn flight() -> Arc<OfNumbers> {
    let flight = Arc::new(OfNumbers::new((), Priority::Normal));
    assert_eq!(flight.join(), Some(1));
    flight.begin(run());
    flight
}

/// Looks until there is an answer, as a task that is polled when it is woken. The run is over once `done` says so.
fn wait(flight: &OfNumbers, place: usize, done: &AtomicBool) -> u32 {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    loop {
        let outcome = match flight.look(place, &waker) {
            Found::Outcome(outcome) => outcome,
            Found::Run(_) if done.load(Ordering::SeqCst) => flight.end(Outcome::Ended(Ok(7))),
            Found::Run(run) => {
                flight.give_back(run);
                signal.wait();
                continue;
            }
            Found::Nothing => {
                signal.wait();
                continue;
            }
        };
        match outcome {
            Outcome::Ended(Ok(answer)) => return answer,
            other => panic!("{other:?}"),
        }
    }
}

/// What the work does when it is done.
fn work(flight: &Arc<OfNumbers>, done: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (flight, done) = (Arc::clone(flight), Arc::clone(done));
    thread::spawn(move || {
        done.store(true, Ordering::SeqCst);
        Waker::from(flight).wake();
    })
}

#[test]
fn loom_all_who_wait_are_answered() {
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
fn loom_who_leaves_takes_no_wake_along() {
    loom::model(|| {
        let (flight, done) = (flight(), Arc::new(AtomicBool::new(false)));
        let work = work(&flight, &done);
        let leaves = {
            let (flight, done) = (Arc::clone(&flight), Arc::clone(&done));
            thread::spawn(move || {
                // Polls once, and does not come back.
                match flight.look(0, &Waker::from(Arc::new(Signal::default()))) {
                    Found::Run(_) if done.load(Ordering::SeqCst) => drop(flight.end(Outcome::Ended(Ok(7)))),
                    Found::Run(run) => flight.give_back(run),
                    Found::Outcome(_) | Found::Nothing => {}
                }
                assert!(flight.leave(0).is_none(), "another waits");
            })
        };
        assert_eq!(wait(&flight, 1, &done), 7);
        leaves.join().unwrap();
        work.join().unwrap();
        assert!(flight.leave(1).is_none(), "the run is over");
    });
}

#[test]
fn loom_the_last_to_leave_has_the_run_to_cancel() {
    loom::model(|| {
        let (flight, cancelled) = (flight(), Arc::new(AtomicUsize::new(0)));
        let leave = |place: usize| {
            let (flight, cancelled) = (Arc::clone(&flight), Arc::clone(&cancelled));
            thread::spawn(move || {
                if let Found::Run(run) = flight.look(place, &Waker::from(Arc::new(Signal::default()))) {
                    flight.give_back(run);
                }
                cancelled.fetch_add(usize::from(flight.leave(place).is_some()), Ordering::SeqCst);
            })
        };
        let (first, second) = (leave(0), leave(1));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(cancelled.load(Ordering::SeqCst), 1);
        assert_eq!(flight.join(), None);
    });
}
