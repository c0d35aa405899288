//! The ledger by itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::backends::worker_pool::memory_budget::{Asked, Claim, Ledger};

type Name = &'static str;
type Called<T> = Vec<(T, Claim<T>)>;

/// A ledger, and those that have waited and been handed on.
struct Desk {
    ledger: Arc<Ledger<Name>>,
    called: Arc<Mutex<Called<Name>>>,
}

impl Desk {
    fn new(capacity: u64) -> Self {
        let called = Arc::new(Mutex::new(Vec::new()));
        let ledger = Ledger::new(capacity);
        let list = Arc::clone(&called);
        ledger.hand_on_to(move |name, claim| list.lock().unwrap().push((name, claim)));
        Self { ledger, called }
    }

    fn ask(&self, name: Name, bytes: u64) -> Option<Claim<Name>> {
        match self.ledger.ask(bytes, name) {
            Asked::Granted(_, claim) => Some(claim),
            Asked::Waits => None,
            Asked::Never(_) => panic!("{name} never fits"),
        }
    }

    /// Who has been handed on since this was last asked, with what they hold.
    fn called(&self) -> Called<Name> {
        std::mem::take(&mut *self.called.lock().unwrap())
    }

    fn names(&self) -> Vec<Name> {
        self.called().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn what_fits_goes_at_once_and_what_does_not_waits_its_turn() {
    let desk = Desk::new(10);
    let first = desk.ask("first", 6).expect("it is empty");
    assert!(desk.ask("second", 6).is_none() && desk.ask("third", 6).is_none());
    assert!(desk.called().is_empty());
    drop(first);
    let second = desk.called();
    assert_eq!(second[0].0, "second");
    assert_eq!((desk.ledger.level().claimed, desk.ledger.level().waiting), (6, 1));
    drop(second);
    assert_eq!(desk.names(), ["third"]);
    let level = desk.ledger.level();
    assert_eq!((level.claimed, level.waiting, level.waits, level.refusals), (0, 0, 2, 0));
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let desk = Desk::new(10);
    assert!(matches!(desk.ledger.ask(11, "huge"), Asked::Never("huge")));
    assert!(matches!(desk.ledger.ask(u64::MAX, "huge"), Asked::Never("huge")));
    assert_eq!((desk.ledger.level().refusals, desk.ledger.level().waiting), (2, 0));
    assert!(desk.ask("all of it", 10).is_some());
}

#[test]
fn small_ones_go_past_a_large_one_only_as_far_as_it_does_not_need() {
    let desk = Desk::new(10);
    let running = desk.ask("running", 5).expect("it is empty");
    assert!(desk.ask("large", 7).is_none());
    // 3 are left beside the large one, and 5 beside what runs.
    let one = desk.ask("one", 1).expect("it fits beside both");
    let two = desk.ask("two", 2).expect("it fits beside both");
    assert!(desk.ask("three", 1).is_none(), "the large one would wait for it");
    drop(running);
    let large = desk.called();
    assert_eq!(large[0].0, "large", "in spite of the two that went past it");
    assert_eq!(desk.ledger.level().claimed, 10);
    drop((one, two));
    assert_eq!(desk.names(), ["three"]);
    drop(large);
    assert_eq!(desk.ledger.level().claimed, 0);
}

#[test]
fn one_that_ends_makes_room_for_the_next_to_go_past() {
    let desk = Desk::new(10);
    let running = desk.ask("running", 5).expect("it is empty");
    assert!(desk.ask("large", 8).is_none());
    for _ in 0..100 {
        assert!(desk.ask("small", 2).is_some(), "the place beside the large one is free again each time");
    }
    drop(running);
    assert_eq!(desk.names(), ["large"]);
}

#[test]
fn a_running_task_gets_more_at_once_or_not_at_all() {
    let desk = Desk::new(10);
    let mut first = desk.ask("first", 4).expect("it is empty");
    let more = desk.ledger.ask_now(4).expect("there are 6");
    assert!(desk.ledger.ask_now(3).is_none());
    assert!(first.grow_to(6) && first.bytes() == 6 && !first.grow_to(7));
    assert!(desk.ask("waits", 1).is_none());
    drop(more);
    assert_eq!(desk.names(), ["waits"]);
    assert!(first.grow_to(3) && first.bytes() == 6, "it never shrinks");
    drop(first);
    assert_eq!(desk.ledger.level().claimed, 0);
}

#[test]
fn who_leaves_lets_the_next_go_ahead() {
    let desk = Desk::new(10);
    let running = desk.ask("running", 5).expect("it is empty");
    for (name, bytes) in [("large", 10), ("leaves", 1), ("small", 3)] {
        assert!(desk.ask(name, bytes).is_none());
    }
    assert_eq!(desk.ledger.take_out(|name| (*name == "leaves").then_some("why")), [("leaves", "why")]);
    assert!(desk.called().is_empty(), "the large one is first still, and takes all");
    assert_eq!(desk.ledger.take_out(|name| (*name == "large").then_some(())), [("large", ())]);
    assert_eq!(desk.names(), ["small"]);
    drop(running);
    assert_eq!((desk.ledger.level().claimed, desk.ledger.level().waiting), (0, 0));
}

#[test]
fn the_end_drops_who_waits_and_who_looks_after_them() {
    let desk = Desk::new(10);
    let running = desk.ask("running", 10).expect("it is empty");
    assert!(desk.ask("waits", 1).is_none() && desk.ledger.someone_waits());
    let ledger = Arc::clone(&desk.ledger);
    let watch = thread::spawn(move || while ledger.someone_waits() {});
    desk.ledger.end();
    watch.join().unwrap();
    drop(running);
    assert!(desk.called().is_empty() && desk.ledger.level().waiting == 0);
}

/// Threads with real time: memory is never overdrawn, nobody is forgotten, and a large one gets its turn among small
/// ones that never end.
#[test]
fn nobody_is_starved_and_no_more_is_used_than_there_is() {
    const CAPACITY: u64 = 100;
    let called: Arc<Mutex<Called<u64>>> = Arc::default();
    let ledger: Arc<Ledger<u64>> = Ledger::new(CAPACITY);
    let list = Arc::clone(&called);
    ledger.hand_on_to(move |id, claim| list.lock().unwrap().push((id, claim)));
    let used = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let run = |claim: Claim<u64>| {
        assert!(used.fetch_add(claim.bytes(), Ordering::SeqCst) + claim.bytes() <= CAPACITY);
        thread::sleep(Duration::from_micros(200));
        used.fetch_sub(claim.bytes(), Ordering::SeqCst);
    };
    // Takes whoever has been handed on, until it has been its own turn.
    let done = |id: u64, bytes: u64| match ledger.ask(bytes, id) {
        Asked::Granted(_, claim) => run(claim),
        Asked::Waits => {
            let start = Instant::now();
            loop {
                let claim = {
                    let mut called = called.lock().unwrap();
                    called.iter().position(|(other, _)| *other == id).map(|at| called.swap_remove(at).1)
                };
                match claim {
                    Some(claim) => return run(claim),
                    None => assert!(start.elapsed() < Duration::from_secs(60), "{id}, {bytes} bytes, is starved"),
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
        Asked::Never(_) => panic!("{bytes} never fit"),
    };
    thread::scope(|scope| {
        let small: Vec<_> = (1..5)
            .map(|thread| {
                let (done, ended) = (&done, &ended);
                scope.spawn(move || {
                    let mut round = 0;
                    while !ended.load(Ordering::Relaxed) {
                        round += 1;
                        done(thread << 32 | round, 1 + (round * 7 + thread) % 40);
                    }
                })
            })
            .collect();
        for round in 0..50 {
            done(round, 60 + (round * 13) % 41);
        }
        ended.store(true, Ordering::Relaxed);
        small.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let level = ledger.level();
    assert_eq!((level.claimed, level.waiting), (0, 0));
    assert!(level.waits > 0, "they never met");
}
