//! The memory budget by itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::backends::worker_pool::memory_budget::{Admission, MemoryBudget, Reservation};

type Name = &'static str;
type Admitted<T> = Vec<(T, Reservation<T>)>;

/// A budget, and the tasks that have waited and been admitted.
struct Bench {
    budget: Arc<MemoryBudget<Name>>,
    admitted: Arc<Mutex<Admitted<Name>>>,
}

impl Bench {
    fn new(capacity: u64) -> Self {
        let admitted = Arc::new(Mutex::new(Vec::new()));
        let budget = MemoryBudget::new(capacity);
        let list = Arc::clone(&admitted);
        budget.on_admitted(move |name, reservation| list.lock().unwrap().push((name, reservation)));
        Self { budget, admitted }
    }

    fn request(&self, name: Name, bytes: u64) -> Option<Reservation<Name>> {
        match self.budget.request(bytes, name) {
            Admission::Admitted(_, reservation) => Some(reservation),
            Admission::Queued => None,
            Admission::TooLarge(_) => panic!("{name} never fits"),
        }
    }

    /// The tasks that were admitted after a wait since the last call, with their reservations.
    fn admitted(&self) -> Admitted<Name> {
        std::mem::take(&mut *self.admitted.lock().unwrap())
    }

    fn names(&self) -> Vec<Name> {
        self.admitted().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn what_fits_is_admitted_at_once_and_the_rest_in_order() {
    let bench = Bench::new(10);
    let first = bench.request("first", 6).expect("it is empty");
    assert!(bench.request("second", 6).is_none() && bench.request("third", 6).is_none());
    assert!(bench.admitted().is_empty());
    drop(first);
    let second = bench.admitted();
    assert_eq!(second[0].0, "second");
    assert_eq!((bench.budget.usage().reserved, bench.budget.usage().waiting), (6, 1));
    drop(second);
    assert_eq!(bench.names(), ["third"]);
    let usage = bench.budget.usage();
    assert_eq!((usage.reserved, usage.waiting, usage.waits, usage.rejections), (0, 0, 2, 0));
}

#[test]
fn more_than_the_capacity_is_rejected_at_once() {
    let bench = Bench::new(10);
    assert!(matches!(bench.budget.request(11, "huge"), Admission::TooLarge("huge")));
    assert!(matches!(bench.budget.request(u64::MAX, "huge"), Admission::TooLarge("huge")));
    assert_eq!((bench.budget.usage().rejections, bench.budget.usage().waiting), (2, 0));
    assert!(bench.request("all of it", 10).is_some());
}

#[test]
fn small_tasks_overtake_a_large_one_only_within_what_it_leaves() {
    let bench = Bench::new(10);
    let running = bench.request("running", 5).expect("it is empty");
    assert!(bench.request("large", 7).is_none());
    // 3 are left with the large one admitted, and 5 while the other runs.
    let one = bench.request("one", 1).expect("it fits with both");
    let two = bench.request("two", 2).expect("it fits with both");
    assert!(bench.request("three", 1).is_none(), "the large one would wait for it");
    drop(running);
    let large = bench.admitted();
    assert_eq!(large[0].0, "large", "in spite of the two that overtook it");
    assert_eq!(bench.budget.usage().reserved, 10);
    drop((one, two));
    assert_eq!(bench.names(), ["three"]);
    drop(large);
    assert_eq!(bench.budget.usage().reserved, 0);
}

#[test]
fn a_task_that_ends_lets_the_next_overtake() {
    let bench = Bench::new(10);
    let running = bench.request("running", 5).expect("it is empty");
    assert!(bench.request("large", 8).is_none());
    for _ in 0..100 {
        assert!(bench.request("small", 2).is_some(), "it fits with the large one each time");
    }
    drop(running);
    assert_eq!(bench.names(), ["large"]);
}

#[test]
fn a_running_task_gets_more_at_once_or_not_at_all() {
    let bench = Bench::new(10);
    let mut first = bench.request("first", 4).expect("it is empty");
    let more = bench.budget.try_reserve(4).expect("there are 6");
    assert!(bench.budget.try_reserve(3).is_none());
    assert!(first.try_grow_to(6) && first.bytes() == 6 && !first.try_grow_to(7));
    assert!(bench.request("waits", 1).is_none());
    drop(more);
    assert_eq!(bench.names(), ["waits"]);
    assert!(first.try_grow_to(3) && first.bytes() == 6, "it never shrinks");
    drop(first);
    assert_eq!(bench.budget.usage().reserved, 0);
}

#[test]
fn a_removed_task_lets_the_next_ahead() {
    let bench = Bench::new(10);
    let running = bench.request("running", 5).expect("it is empty");
    for (name, bytes) in [("large", 10), ("leaves", 1), ("small", 3)] {
        assert!(bench.request(name, bytes).is_none());
    }
    assert_eq!(bench.budget.remove_waiting(|name| (*name == "leaves").then_some("why")), [("leaves", "why")]);
    assert!(bench.admitted().is_empty(), "the large one is first still, and takes all");
    assert_eq!(bench.budget.remove_waiting(|name| (*name == "large").then_some(())), [("large", ())]);
    assert_eq!(bench.names(), ["small"]);
    drop(running);
    assert_eq!((bench.budget.usage().reserved, bench.budget.usage().waiting), (0, 0));
}

#[test]
fn closing_drops_waiting_tasks_and_wakes_who_blocks() {
    let bench = Bench::new(10);
    let running = bench.request("running", 10).expect("it is empty");
    assert!(bench.request("waits", 1).is_none() && bench.budget.block_until_waiting());
    let budget = Arc::clone(&bench.budget);
    let watch = thread::spawn(move || while budget.block_until_waiting() {});
    bench.budget.close();
    watch.join().unwrap();
    drop(running);
    assert!(bench.admitted().is_empty() && bench.budget.usage().waiting == 0);
}

/// Threads with real time: no more than the capacity is reserved, no task is forgotten, and a large task is admitted among
/// small ones that never end.
#[test]
fn no_task_is_starved_and_no_more_is_used_than_there_is() {
    const CAPACITY: u64 = 100;
    let admitted: Arc<Mutex<Admitted<u64>>> = Arc::default();
    let budget: Arc<MemoryBudget<u64>> = MemoryBudget::new(CAPACITY);
    let list = Arc::clone(&admitted);
    budget.on_admitted(move |id, reservation| list.lock().unwrap().push((id, reservation)));
    let used = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let run = |reservation: Reservation<u64>| {
        assert!(used.fetch_add(reservation.bytes(), Ordering::SeqCst) + reservation.bytes() <= CAPACITY);
        thread::sleep(Duration::from_micros(200));
        used.fetch_sub(reservation.bytes(), Ordering::SeqCst);
    };
    // Waits until the task itself has been admitted.
    let done = |id: u64, bytes: u64| match budget.request(bytes, id) {
        Admission::Admitted(_, reservation) => run(reservation),
        Admission::Queued => {
            let start = Instant::now();
            loop {
                let reservation = {
                    let mut admitted = admitted.lock().unwrap();
                    admitted.iter().position(|(other, _)| *other == id).map(|at| admitted.swap_remove(at).1)
                };
                match reservation {
                    Some(reservation) => return run(reservation),
                    None => assert!(start.elapsed() < Duration::from_secs(60), "{id}, {bytes} bytes, is starved"),
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
        Admission::TooLarge(_) => panic!("{bytes} never fit"),
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
    let usage = budget.usage();
    assert_eq!((usage.reserved, usage.waiting), (0, 0));
    assert!(usage.waits > 0, "they never met");
}

#[test]
fn memory_is_freed_while_the_head_of_the_queue_lacks_some() {
    let bench = Bench::new(10);
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    bench.budget.on_shortage(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let relieve = || {
        bench.budget.relieve_shortage();
        (bench.budget.shortage(), calls.load(Ordering::SeqCst))
    };
    let [copy, run] = [4, 3].map(|bytes| bench.budget.try_reserve(bytes).unwrap());
    assert_eq!(relieve(), (0, 0), "no task waits");
    assert!(bench.request("large", 8).is_none());
    assert_eq!(relieve(), (5, 1));
    let mut more = bench.budget.try_reserve(0).unwrap();
    assert!(!more.try_grow_to(1), "waiting tasks come first");
    drop(run);
    assert_eq!(relieve(), (2, 2));
    drop(copy);
    assert_eq!(relieve(), (0, 2));
    assert_eq!(bench.names(), ["large"]);
}
