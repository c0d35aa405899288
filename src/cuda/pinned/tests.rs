//! The pool with memory that no device knows.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::pool::{PageLock, PoolUsage};
use super::{LARGE, PinnedMemory};
use crate::buffer::{Buffer, Pages};
use crate::copy::CopyThreads;

const SLAB: usize = 2 << 20;

/// The pages that are locked now. Checks that each lock is followed by one unlock.
#[derive(Clone, Default)]
struct Locked(Arc<Mutex<BTreeSet<usize>>>, Arc<AtomicBool>);

impl Locked {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl PageLock for Locked {
    fn lock(&self, pages: NonNull<u8>, len: usize) -> Result<(), String> {
        assert!(pages.addr().get().is_multiple_of(4096) && len.is_power_of_two());
        if self.1.load(Ordering::Relaxed) {
            return Err("as the test demands".to_owned());
        }
        assert!(self.0.lock().unwrap().insert(pages.addr().get()), "locked twice");
        Ok(())
    }

    fn unlock(&self, pages: NonNull<u8>) {
        assert!(self.0.lock().unwrap().remove(&pages.addr().get()), "unlocked twice, or never locked");
    }
}

/// A pool without a device.
pub(crate) fn without_device(limit: usize) -> PinnedMemory {
    memory(limit).0
}

fn memory(limit: usize) -> (PinnedMemory, Locked) {
    let locked = Locked::default();
    let copy_threads = CopyThreads::start("test", 2).unwrap();
    (PinnedMemory::new(limit, Box::new(locked.clone()), copy_threads), locked)
}

fn usage(bytes: usize, in_use: usize, fallbacks: u64) -> PoolUsage {
    PoolUsage { bytes, in_use, fallbacks }
}

#[test]
fn a_slab_is_reused_without_the_data_of_its_last_user() {
    let (memory, locked) = memory(8 * SLAB);
    let mut first = memory.zeroed::<u32>(SLAB / 4).unwrap();
    let address = first.as_ptr();
    first.fill(7);
    assert_eq!(memory.usage(), usage(SLAB, SLAB, 0));
    drop(first);
    assert_eq!(memory.usage(), usage(SLAB, 0, 0));
    let second = memory.zeroed::<f64>(3).unwrap();
    assert_eq!((second.as_ptr().cast(), &*second), (address, &[0.0; 3][..]));
    assert_eq!(locked.count(), 1);
}

#[test]
fn the_pool_grows_by_powers_of_two_up_to_its_limit() {
    let (memory, locked) = memory(8 * SLAB);
    let large = memory.zeroed::<u8>(3 * SLAB).unwrap();
    assert_eq!(memory.usage(), usage(4 * SLAB, 4 * SLAB, 0));
    let small: Vec<_> = (0..4).map(|_| memory.zeroed::<u8>(SLAB - 1).unwrap()).collect();
    assert!(memory.zeroed::<u8>(1).is_none());
    assert!(memory.zeroed::<u8>(usize::MAX).is_none() && memory.zeroed::<u64>(usize::MAX).is_none());
    assert_eq!((memory.usage().bytes, memory.usage().in_use, locked.count()), (8 * SLAB, 8 * SLAB, 5));
    drop(large);
    // An idle slab of twice the size is reused; one that is far too large is freed.
    let fits = memory.zeroed::<u8>(SLAB + 1).unwrap();
    assert_eq!(memory.usage().in_use, 8 * SLAB);
    drop((fits, small));
    let all = memory.zeroed::<u8>(8 * SLAB).unwrap();
    assert_eq!((memory.usage().bytes, memory.usage().in_use, locked.count()), (8 * SLAB, 8 * SLAB, 1));
    drop(all);
}

#[test]
fn a_buffer_is_written_in_place_only_while_it_is_not_shared() {
    let (memory, _) = memory(8 * SLAB);
    let mut buffer = memory.copy_of(&vec![1_u32; LARGE / 4]).unwrap();
    let before = buffer.as_ptr();
    buffer[0] = 2;
    assert_eq!(buffer.as_ptr(), before);
    let shared = buffer.clone();
    assert_eq!((shared.as_ptr(), memory.usage().in_use), (before, SLAB), "a clone is no copy");
    buffer[0] = 3;
    assert!(shared[0] == 2 && buffer[0] == 3 && buffer[1] == 1 && buffer.as_ptr() != before);
    // As a queued copy holds it.
    let held = memory.share(bytemuck::cast_slice(&shared)).unwrap();
    drop(shared);
    assert_eq!((memory.usage().in_use, held[0]), (SLAB, 2));
    drop(held);
    assert_eq!(memory.usage().in_use, 0);
}

#[test]
fn memory_of_the_pool_is_found_and_no_other() {
    let (memory, _) = memory(8 * SLAB);
    let buffer = memory.zeroed::<u8>(2 * SLAB).unwrap();
    assert_eq!(memory.share(&buffer[SLAB..]).unwrap().as_ptr(), buffer[SLAB..].as_ptr());
    assert!(memory.share(&buffer[..LARGE - 1]).is_none(), "too small to be searched for");
    assert!(memory.share(&[]).is_none() && memory.share(&vec![0; 2 * LARGE]).is_none());
    assert_ne!(memory.copy_of_large::<f64>(&buffer[7..][..LARGE]).unwrap().as_ptr().cast(), buffer[7..].as_ptr());
    assert!(memory.copy_of_large::<f64>(&[0; 8]).is_none());
}

#[test]
fn buffers_outlive_the_pool_and_are_not_locked_then() {
    let (memory, locked) = memory(8 * SLAB);
    let buffer = memory.copy_of(&vec![5_u8; SLAB]).unwrap();
    drop(memory.zeroed::<u8>(4 * SLAB));
    let bytes = Bytes::from_owner(memory.share(&buffer).unwrap());
    assert_eq!(locked.count(), 2);
    memory.close();
    assert_eq!((locked.count(), memory.usage()), (0, usage(SLAB, SLAB, 0)));
    assert!(memory.zeroed::<u8>(1).is_none(), "it is closed");
    memory.trim(Duration::ZERO, || true);
    memory.close();
    drop(memory);
    drop(buffer);
    assert!(bytes.iter().all(|byte| *byte == 5));
    let pool = bytes.slice(SLAB / 2..);
    drop(bytes);
    assert_eq!(pool[0], 5);
}

#[test]
fn idle_slabs_are_freed_after_their_time_when_allowed() {
    let (memory, locked) = memory(8 * SLAB);
    let kept = memory.zeroed::<u8>(SLAB).unwrap();
    drop(memory.zeroed::<u8>(SLAB));
    memory.trim(Duration::from_secs(60), || true);
    memory.trim(Duration::ZERO, || false);
    assert_eq!(locked.count(), 2);
    memory.trim(Duration::ZERO, || true);
    assert_eq!((locked.count(), memory.usage()), (1, usage(SLAB, SLAB, 0)));
    drop(kept);
    memory.trim(Duration::ZERO, || true);
    assert_eq!((locked.count(), memory.usage()), (0, usage(0, 0, 0)));
}

#[test]
fn pages_that_cannot_be_locked_are_a_fallback_and_no_leak() {
    let (memory, locked) = memory(2 * SLAB);
    locked.1.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        assert!(memory.zeroed::<u8>(2 * SLAB).is_none());
    }
    assert_eq!(memory.usage(), usage(0, 0, 5));
    locked.1.store(false, Ordering::Relaxed);
    assert!(memory.zeroed::<u8>(2 * SLAB).is_some());
}

#[test]
fn threads_take_share_and_return_while_the_pool_is_trimmed_and_ends() {
    let (memory, locked) = memory(6 * SLAB);
    thread::scope(|scope| {
        for seed in 0..4_u8 {
            let memory = memory.clone();
            scope.spawn(move || {
                for round in 0..200_usize {
                    let len = 1 + (round * 977 + usize::from(seed) * 131) % (2 * SLAB);
                    let Some(mut buffer) = memory.zeroed::<u8>(len) else { continue };
                    buffer.fill(seed);
                    let shared: Option<Buffer<u8>> = memory.copy_of_large(&buffer);
                    drop(buffer);
                    assert!(shared.is_none_or(|shared| shared.iter().all(|byte| *byte == seed)));
                }
            });
        }
        scope.spawn(|| (0..100).for_each(|_| memory.trim(Duration::ZERO, || true)));
        thread::sleep(Duration::from_millis(50));
        memory.close();
    });
    assert_eq!((locked.count(), memory.usage().bytes, memory.usage().in_use), (0, 0, 0));
}

#[cfg(all(feature = "isolation", target_os = "linux"))]
#[test]
fn pages_of_others_are_pinned_within_the_limit_until_they_are_given_up() {
    const LEN: usize = 4 << 20;
    let (memory, locked) = memory(LEN + SLAB);
    let mut pages = Pages::unforked(LEN).unwrap();
    let start = NonNull::from(&mut *pages).cast::<u8>();
    // SAFETY: `pages` are dropped last.
    let pin = |len| unsafe { memory.pin_foreign(start, len) };
    assert!(pin(LARGE / 2).is_none(), "small ones are copied");
    assert!(pin(2 * LEN).is_none(), "more than the limit");
    let pinned = pin(LEN).unwrap();
    assert_eq!((memory.usage(), locked.count()), (usage(LEN, 0, 0), 1));
    // The pool has what is left.
    assert!(memory.zeroed::<u8>(LEN).is_none());
    drop(memory.zeroed::<u8>(SLAB).unwrap());

    assert!(memory.is_in_foreign(&pages[..LEN]) && memory.is_in_foreign(&pages[LARGE..]));
    assert!(!memory.is_in_foreign(&vec![0; LEN]) && !memory.is_in_foreign(&pages[..LARGE / 2]));
    drop(pinned);
    assert!(!memory.is_in_foreign(&pages[..LEN]));
    assert_eq!((memory.usage(), locked.count()), (usage(SLAB, 0, 1), 1));

    // Closed, the pool unpins them, and they are not unpinned again.
    let pinned = pin(LEN).unwrap();
    memory.close();
    assert_eq!(locked.count(), 0);
    drop(pinned);
    assert!(pin(LEN).is_none());

    let (memory, locked) = self::memory(LEN);
    locked.1.store(true, Ordering::Relaxed);
    // SAFETY: as above.
    assert!(unsafe { memory.pin_foreign(start, LEN) }.is_none());
    assert_eq!(memory.usage(), usage(0, 0, 0));
}
