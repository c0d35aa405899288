//! The cache by itself: copies that are numbers in place of device memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::cache::{Acquired, Cache, Lease, Resident};

/// A copy, which removes itself from the list of copies when it is freed.
struct Copy {
    address: u64,
    live: Arc<Mutex<HashMap<u64, u64>>>,
}

impl Resident for Copy {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.live.lock().unwrap().remove(&self.address).expect("freed once");
    }
}

#[derive(Clone)]
struct Bench {
    cache: Arc<Cache<Copy>>,
    live: Arc<Mutex<HashMap<u64, u64>>>,
    /// Held while room is made and memory allocated in it, so that what is live is what the cache has accounted for.
    allocating: Arc<Mutex<()>>,
}

impl Bench {
    fn new(budget: u64) -> Self {
        Self { cache: Arc::new(Cache::new(budget)), live: Arc::default(), allocating: Arc::default() }
    }

    /// Makes a copy of `bytes` if there is none; its address is that of the group times 1000.
    fn get(&self, id: u64, bytes: u64) -> Option<Lease<Copy>> {
        loop {
            match self.cache.acquire(id, || true) {
                Acquired::Copy(lease) => return Some(lease),
                Acquired::BeingFilled => self.cache.wait(Duration::from_millis(1)),
                Acquired::Unregistered => unreachable!("it is registered"),
                Acquired::Fill(mut fill) => {
                    let _allocating = self.allocating.lock().unwrap();
                    drop(fill.make_room(bytes)?);
                    let mut live = self.live.lock().unwrap();
                    assert_eq!(live.insert(id * 1000, bytes), None);
                    assert!(live.values().sum::<u64>() <= self.cache.usage().budget, "{live:?}");
                    drop(live);
                    return Some(fill.publish(Copy { address: id * 1000, live: Arc::clone(&self.live) }));
                }
            }
        }
    }

    fn live(&self) -> Vec<u64> {
        let mut live: Vec<_> = self.live.lock().unwrap().keys().map(|address| address / 1000).collect();
        live.sort_unstable();
        live
    }
}

#[test]
fn the_least_recently_used_idle_copies_are_evicted() {
    let bench = Bench::new(10);
    for id in [1, 2, 3] {
        assert_eq!(bench.get(id, 3).unwrap().address(), id * 1000);
    }
    // Used again, and held.
    drop(bench.get(1, 3));
    let held = bench.get(2, 3).unwrap();
    drop(bench.get(4, 4));
    assert_eq!(bench.live(), [1, 2, 4], "3 was the oldest");
    drop(bench.get(5, 7));
    assert_eq!(bench.live(), [2, 5], "2 is held");
    assert!(bench.get(6, 8).is_none(), "no room beside 2");
    assert_eq!(bench.live(), [2, 5], "nothing is evicted in vain");
    drop(held);
    drop(bench.get(6, 10));
    let usage = bench.cache.usage();
    assert_eq!((usage.bytes, usage.copies, usage.hits, usage.misses, usage.evictions), (10, 1, 2, 6, 5));
    assert!(bench.get(7, 11).is_none());
}

#[test]
fn a_copy_of_unregistered_arrays_is_freed_when_the_last_run_on_it_has_ended() {
    let bench = Bench::new(10);
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&wakes);
    bench.cache.on_unwanted(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let (one, two) = (bench.get(1, 4).unwrap(), bench.get(1, 4).unwrap());
    bench.cache.retire(1);
    drop(one);
    assert!(bench.cache.take_unwanted(0).is_empty());
    assert_eq!((bench.live(), wakes.load(Ordering::SeqCst)), (vec![1], 0));
    drop(two);
    assert_eq!(wakes.load(Ordering::SeqCst), 1);
    assert_eq!(bench.cache.usage().bytes, 4, "it counts until it is freed");
    drop(bench.cache.take_unwanted(0));
    assert_eq!((bench.live(), bench.cache.usage().bytes, bench.cache.usage().evictions), (vec![], 0, 0));
    // An idle one at once; one that is being made when it has been used.
    drop(bench.get(2, 4));
    bench.cache.retire(2);
    drop(bench.cache.take_unwanted(0));
    assert!(bench.live().is_empty());
    let Acquired::Fill(mut fill) = bench.cache.acquire(3, || true) else { panic!("it is not there") };
    bench.cache.retire(3);
    drop(fill.make_room(1));
    bench.live.lock().unwrap().insert(3000, 1);
    drop(fill.publish(Copy { address: 3000, live: Arc::clone(&bench.live) }));
    drop(bench.cache.take_unwanted(0));
    assert_eq!((bench.live(), wakes.load(Ordering::SeqCst)), (vec![], 3));
    assert!(matches!(bench.cache.acquire(3, || false), Acquired::Unregistered));
}

#[test]
fn a_fill_that_is_given_up_is_done_by_the_next_run() {
    let bench = Bench::new(10);
    let Acquired::Fill(mut fill) = bench.cache.acquire(1, || true) else { panic!("it is not there") };
    assert_eq!(fill.make_room(6).unwrap().len(), 0);
    assert!(matches!(bench.cache.acquire(1, || true), Acquired::BeingFilled));
    assert!(bench.get(2, 6).is_none(), "its memory is taken");
    drop(fill);
    assert_eq!(bench.cache.usage().bytes, 0);
    drop(bench.get(2, 6));
    drop(bench.get(1, 4));
    assert_eq!(bench.live(), [1, 2]);
}

#[test]
fn idle_copies_are_evicted_for_other_needs() {
    let bench = Bench::new(10);
    let held = bench.get(1, 3).unwrap();
    drop(bench.get(2, 3));
    drop(bench.get(3, 3));
    drop(bench.cache.take_unwanted(1));
    assert_eq!(bench.live(), [1, 3]);
    assert!(bench.cache.take_unwanted(0).is_empty(), "there is no shortage");
    drop(bench.cache.evict(u64::MAX));
    assert_eq!(bench.live(), [1]);
    drop(held);
    drop(bench.cache.evict(u64::MAX));
    assert_eq!((bench.live(), bench.cache.usage().bytes), (vec![], 0));
}

#[test]
fn pinned_copies_are_evicted_for_no_other_copy_and_for_runs_last() {
    let bench = Bench::new(10);
    bench.cache.pin(1);
    drop(bench.get(1, 4));
    drop(bench.get(2, 3));
    drop(bench.get(3, 6));
    assert_eq!(bench.live(), [1, 3], "2 is more recent than 1, which is pinned");
    assert!(bench.get(4, 7).is_none(), "no room beside 1");
    assert_eq!((bench.live(), bench.cache.usage().evictable), (vec![1, 3], 6));
    drop(bench.cache.evict_for_copy(u64::MAX));
    assert_eq!(bench.live(), [1]);
    assert!(bench.cache.evict_for_copy(u64::MAX).is_empty());

    // A run that needs the memory gets the pinned copy last, which is pinned again when it is made again.
    drop(bench.get(3, 6));
    drop(bench.cache.take_unwanted(1));
    assert_eq!(bench.live(), [1]);
    drop(bench.cache.take_unwanted(1));
    assert!(bench.live().is_empty());
    drop(bench.get(1, 4));
    assert!(bench.get(4, 7).is_none());
    bench.cache.unpin(1);
    drop(bench.get(4, 7));
    assert_eq!(bench.live(), [4]);

    // It is not pinned any longer than its arrays are registered.
    bench.cache.pin(4);
    bench.cache.retire(4);
    drop(bench.cache.take_unwanted(0));
    drop(bench.get(4, 7));
    drop(bench.get(5, 10));
    assert_eq!(bench.live(), [5]);
}

#[test]
fn threads_that_need_a_copy_at_once_make_it_once() {
    let bench = Bench::new(100);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0..200 {
                    let lease = bench.get(round % 20, 10).expect("at most 8 of 10 are held");
                    assert!(bench.live.lock().unwrap().contains_key(&lease.address()), "freed while it is used");
                }
            });
        }
    });
    let usage = bench.cache.usage();
    assert_eq!(usage.hits + usage.misses, 1600);
    assert_eq!(usage.bytes, 10 * usage.copies as u64);
    let single = Bench::new(10);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(single.get(1, 10).is_some()));
        }
    });
    assert_eq!((single.cache.usage().misses, single.cache.usage().hits), (1, 7));
}

#[derive(Clone, Debug)]
enum Step {
    /// Stores a version of so many bytes in place of the one before.
    Put(usize, u64),
    Delete(usize),
    /// Begins a run on the newest version.
    Run(usize),
    /// Ends one of the runs.
    End(usize),
    /// Pins the copy of the newest version.
    Pin(usize),
    /// Evicts copies that no run uses, of so many bytes together.
    Evict(u64),
    /// Frees copies of versions that were replaced or deleted.
    Free,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3_usize, 1..12_u64).prop_map(|(name, bytes)| Step::Put(name, bytes)),
        1 => (0..3_usize).prop_map(Step::Delete),
        3 => (0..3_usize).prop_map(Step::Run),
        2 => any::<usize>().prop_map(Step::End),
        1 => (0..3_usize).prop_map(Step::Pin),
        1 => (1..20_u64).prop_map(Step::Evict),
        1 => Just(Step::Free),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// In whatever order three names are stored, deleted, run on, pinned and evicted: a copy that a run uses is never freed, memory
    /// counts for exactly the copies that there are, and at the end there are none.
    #[test]
    fn copies_are_there_while_runs_use_them_and_count_until_they_are_freed(steps in steps()) {
        const BUDGET: u64 = 20;
        let bench = Bench::new(BUDGET);
        let mut next_id = 1;
        let mut stored: [Option<(u64, u64)>; 3] = [None; 3];
        let mut runs: Vec<(Lease<Copy>, u64, u64)> = Vec::new();
        let mut pinned: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Put(name, bytes) => {
                    if let Some((id, _)) = stored[name].replace((next_id, bytes)) {
                        bench.cache.retire(id);
                    }
                    next_id += 1;
                }
                Step::Delete(name) => {
                    if let Some((id, _)) = stored[name].take() {
                        bench.cache.retire(id);
                    }
                }
                Step::Run(name) => {
                    let Some((id, bytes)) = stored[name] else { continue };
                    let mut used: Vec<(u64, u64)> = runs.iter().map(|(_, id, bytes)| (*id, *bytes)).collect();
                    used.push((id, bytes));
                    // Pinned copies stay, whether runs use them or not.
                    let pinned = stored.iter().flatten().filter(|(id, _)| pinned.contains(id));
                    used.extend(pinned.filter(|(id, _)| bench.cache.contains(*id)));
                    used.sort_unstable();
                    used.dedup();
                    let fits = used.iter().map(|(_, bytes)| bytes).sum::<u64>() <= BUDGET;
                    let lease = bench.get(id, bytes);
                    prop_assert_eq!(lease.is_some(), fits, "{:?}", used);
                    runs.extend(lease.map(|lease| (lease, id, bytes)));
                }
                Step::End(at) if !runs.is_empty() => drop(runs.swap_remove(at % runs.len())),
                Step::End(_) => {}
                Step::Pin(name) => {
                    if let Some((id, _)) = stored[name] {
                        bench.cache.pin(id);
                        pinned.push(id);
                    }
                }
                Step::Evict(bytes) => drop(bench.cache.evict(bytes)),
                Step::Free => drop(bench.cache.take_unwanted(0)),
            }
            let live = bench.live.lock().unwrap();
            prop_assert_eq!(bench.cache.usage().bytes, live.values().sum::<u64>());
            for (lease, id, bytes) in &runs {
                prop_assert_eq!((lease.address(), live.get(&lease.address())), (id * 1000, Some(bytes)));
            }
        }
        drop(runs);
        stored.into_iter().flatten().for_each(|(id, _)| bench.cache.retire(id));
        drop(bench.cache.take_unwanted(0));
        prop_assert_eq!((bench.live(), bench.cache.usage().bytes, bench.cache.usage().copies), (vec![], 0, 0));
    }
}
