//! Models of runs that make, use and evict the same copies: one that a run uses is never freed, and all are in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::cache::{Acquired, Cache, Resident};

const GROUP: u64 = 1;
const BYTES: u64 = 4;

/// A copy, which counts itself while it exists.
struct Copy(Arc<AtomicUsize>);

impl Resident for Copy {
    fn address(&self) -> u64 {
        1000
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Device {
    cache: Arc<Cache<Copy>>,
    /// Copies that exist.
    live: Arc<AtomicUsize>,
    registered: Arc<loom::sync::atomic::AtomicBool>,
}

impl Device {
    fn new() -> Self {
        let registered = Arc::new(loom::sync::atomic::AtomicBool::new(true));
        Self { cache: Arc::new(Cache::new(BYTES)), live: Arc::default(), registered }
    }

    /// Uses the copy, which is made if there is none. Returns whether the arrays were registered.
    fn run(&self) -> bool {
        let lease = loop {
            match self.cache.acquire(GROUP, || self.registered.load(Ordering::SeqCst)) {
                Acquired::Copy(lease) => break lease,
                Acquired::BeingFilled => thread::yield_now(),
                Acquired::Unregistered => return false,
                Acquired::Fill(mut fill) => {
                    let evicted = fill.make_room(BYTES).expect("no other copy is in use");
                    assert!(evicted.is_empty());
                    self.live.fetch_add(1, Ordering::SeqCst);
                    break fill.publish(Copy(Arc::clone(&self.live)));
                }
            }
        };
        thread::yield_now();
        assert_eq!(self.live.load(Ordering::SeqCst), 1, "a copy is freed while a run uses it");
        drop(lease);
        true
    }

    /// Unregisters the arrays, as the drop of their registration does.
    fn unregister(&self) {
        self.registered.store(false, Ordering::SeqCst);
        self.cache.retire(GROUP);
    }

    /// Frees what is to be freed, and checks that nothing is left.
    fn check_empty(&self) {
        drop(self.cache.take_unwanted(0));
        let usage = self.cache.usage();
        assert_eq!((usage.copies, usage.bytes, self.live.load(Ordering::SeqCst)), (0, 0, 0));
    }
}

#[test]
fn loom_a_copy_is_not_evicted_while_a_run_uses_it() {
    loom::model(|| {
        let device = Device::new();
        let other = device.clone();
        let other = thread::spawn(move || assert!(other.run()));
        drop(device.cache.evict(u64::MAX));
        assert!(device.run());
        other.join().unwrap();
        drop(device.cache.evict(u64::MAX));
        device.check_empty();
    });
}

#[test]
fn loom_copies_of_unregistered_arrays_are_freed() {
    loom::model(|| {
        let device = Device::new();
        let others = [device.clone(), device.clone()].map(|other| thread::spawn(move || other.run()));
        device.unregister();
        for other in others {
            other.join().unwrap();
        }
        device.check_empty();
    });
}

#[test]
fn loom_a_copy_that_is_given_up_is_made_by_the_next_run() {
    loom::model(|| {
        let device = Device::new();
        let other = device.clone();
        let other = thread::spawn(move || {
            if let Acquired::Fill(mut fill) = other.cache.acquire(GROUP, || true) {
                drop(fill.make_room(BYTES));
            }
        });
        assert!(device.run());
        other.join().unwrap();
        device.unregister();
        device.check_empty();
    });
}
