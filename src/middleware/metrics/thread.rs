//! Which copy of the figures a thread writes to.
//!
//! A locked addition takes some 6 ns where nobody contends and many times that where all cores count the same kernel, so
//! the figures exist in copies. A thread that owns a copy is the only one to write it, and adds with a plain load and
//! store. Copies are few: a thread that finds all of them owned shares the last one with its like, and pays for the
//! locked additions. A copy whose owner has ended goes to the next thread that asks, with what has been counted in it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// One for each bit of [`OWNED`], and the one that is shared.
pub(super) const COPIES: usize = SHARED as usize + 1;
const SHARED: u8 = u32::BITS as u8;
/// Not asked yet.
const NONE: u8 = u8::MAX;

/// A bit for each copy that a thread owns.
static OWNED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Without a destructor, so that reading it is a single load.
    static COPY: Cell<u8> = const { Cell::new(NONE) };
    static OWNER: Owner = const { Owner };
}

/// The copy of the current thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    copy: u8,
}

impl Writer {
    #[inline]
    pub(super) fn current() -> Self {
        match COPY.get() {
            NONE => Self { copy: claim() },
            copy => Self { copy },
        }
    }

    /// Without asking for a copy: a thread that has not asked yet has one that does not exist.
    #[inline]
    pub(super) fn known() -> Self {
        Self { copy: COPY.get() }
    }

    #[inline]
    pub(super) fn copy(self) -> usize {
        usize::from(self.copy)
    }

    #[inline]
    pub(super) fn add(self, cell: &AtomicU64, value: u64) {
        if self.copy == SHARED {
            cell.fetch_add(value, Ordering::Relaxed);
        } else {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
        }
    }
}

#[cold]
fn claim() -> u8 {
    // The owner's destructor is what gives the copy back. On a thread that is past it, nothing would.
    let copy = match OWNER.try_with(|_| ()) {
        Ok(()) => {
            let lowest_free = |owned: u32| (owned != u32::MAX).then(|| owned | (owned + 1));
            // Acquire: what the copy's last owner wrote is to be seen before it is added to.
            OWNED
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest_free)
                .map_or(SHARED, |owned| (!owned).trailing_zeros() as u8)
        }
        Err(_) => SHARED,
    };
    COPY.set(copy);
    copy
}

/// Gives the thread's copy back when the thread ends.
#[derive(Debug)]
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        // Destructors that run after this one may still end calls.
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
    fn no_two_threads_own_a_copy_and_those_without_one_share_the_last() {
        // More than there are copies for, all alive at once; then again, with what the first gave back.
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
    fn nothing_is_lost_when_copies_change_hands() {
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
