//! Assigns each thread a copy of the metrics to write to.
//!
//! An atomic addition takes about 6 ns without contention, and many times that while all cores count calls of one
//! kernel. So there are several copies of the metrics. A thread that owns a copy is its only writer, and adds with a
//! plain load and store. The number of copies is bounded: threads without one share the last copy, with atomic
//! additions. When a thread ends, its copy with its counts is reused by the next thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The number of copies: one per bit of [`OWNED`], and the shared one.
pub(super) const COPIES: usize = SHARED as usize + 1;
/// The index of the shared copy.
const SHARED: u8 = u32::BITS as u8;
/// The thread has not been assigned a copy yet.
const NONE: u8 = u8::MAX;

/// The copies that are owned by a thread, one bit each.
static OWNED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The copy of this thread. It has no destructor, so that a read is a single load.
    static COPY: Cell<u8> = const { Cell::new(NONE) };
    static OWNER: Owner = const { Owner };
}

/// Writes to the copy of the current thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    copy: u8,
}

impl Writer {
    pub(super) fn current() -> Self {
        match COPY.get() {
            NONE => Self { copy: assign() },
            copy => Self { copy },
        }
    }

    pub(super) fn copy(self) -> usize {
        usize::from(self.copy)
    }

    pub(super) fn add(self, cell: &AtomicU64, value: u64) {
        if self.copy == SHARED {
            cell.fetch_add(value, Ordering::Relaxed);
        } else {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
        }
    }
}

fn assign() -> u8 {
    // The destructor of `OWNER` releases the copy. A thread that has already run it uses the shared copy.
    let copy = match OWNER.try_with(|_| ()) {
        Ok(()) => {
            let lowest_free = |owned: u32| (owned != u32::MAX).then(|| owned | (owned + 1));
            // Acquire: the writes of the previous owner must be visible before this thread adds to them.
            OWNED
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest_free)
                .map_or(SHARED, |owned| (!owned).trailing_zeros() as u8)
        }
        Err(_) => SHARED,
    };
    COPY.set(copy);
    copy
}

/// Releases the thread's copy when the thread ends.
#[derive(Debug)]
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        // Destructors that run later may still record calls.
        let copy = COPY.replace(SHARED);
        if copy < SHARED {
            OWNED.fetch_and(!(1 << copy), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{COPIES, SHARED, Writer};
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Barrier, Mutex};

    #[test]
    fn no_two_threads_own_the_same_copy_and_the_others_share_one() {
        // More threads than copies, all alive at once; then again, with the copies that the first have released.
        for _ in 0..2 {
            let threads = COPIES + 8;
            let (barrier, copies) = (Barrier::new(threads), Mutex::new(Vec::new()));
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let copy = Writer::current().copy();
                        copies.lock().unwrap().push(copy);
                        barrier.wait();
                    });
                }
            });
            let copies = copies.into_inner().unwrap();
            let owned: Vec<_> = copies.iter().filter(|copy| **copy != usize::from(SHARED)).collect();
            assert_eq!(owned.iter().collect::<HashSet<_>>().len(), owned.len());
            assert!(copies.len() > owned.len(), "{} threads own a copy", owned.len());
        }
    }

    #[test]
    fn no_count_is_lost_when_copies_change_owners() {
        let cells = [const { AtomicU64::new(0) }; COPIES];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        std::thread::scope(|scope| {
                            scope.spawn(|| {
                                let writer = Writer::current();
                                (0..1000).for_each(|_| writer.add(&cells[writer.copy()], 1));
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum::<u64>(), 8 * 20 * 1000);
    }
}
