//! [`Pool`]: slabs of pinned memory, idle or in use, up to a limit.
//!
//! A slab is an anonymous map in huge pages that is pinned by `cuMemHostRegister`. Memory that the driver itself allocates
//! would be freed with its context, and a response may outlive its backend; these pages are only unpinned then, and stay
//! mapped until the last handle is dropped.
//!
//! There are two locks. `state` is never held across a call of the driver, except when the pool is closed. `locker` is held
//! shared across calls of the driver and exclusively when the pool is closed, so that no page is pinned in a context that
//! has been released.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::buffer::Pages;

/// The smallest slab: a huge page.
const SMALLEST: usize = 2 << 20;
/// A slab is at most this many times as large as the array in it.
const MAX_OVERSIZE: usize = 4;

/// Pins pages for a device, and unpins them.
pub(in crate::cuda) trait PageLock: Send + Sync {
    /// Pins `len` bytes of pages.
    ///
    /// # Errors
    /// Why they cannot be pinned.
    fn lock(&self, pages: NonNull<u8>, len: usize) -> Result<(), String>;
    /// Unpins pages that were pinned. Where it fails they remain usable.
    fn unlock(&self, pages: NonNull<u8>);
}

pub(in crate::cuda) struct Pool {
    limit: usize,
    /// `None` once the pool is closed.
    locker: RwLock<Option<Box<dyn PageLock>>>,
    state: Mutex<State>,
    fallbacks: AtomicU64,
}

#[derive(Default)]
struct State {
    idle: Vec<(Block, Instant)>,
    /// The slabs in use, by address.
    in_use: BTreeMap<NonZero<usize>, Weak<Slab>>,
    in_use_bytes: usize,
    /// Pages of others that are pinned, and their lengths, by address.
    foreign: BTreeMap<NonZero<usize>, usize>,
    /// Bytes of all slabs and of the pages of others, including those that are being pinned.
    bytes: usize,
    closed: bool,
}

/// Pinned pages that are idle.
struct Block {
    address: NonNull<u8>,
    len: usize,
    /// Only accessed through `address`, and unmapped on drop.
    _pages: Pages,
}

// SAFETY: plain memory that has one owner; the address points into the pages.
unsafe impl Send for Block {}

/// A slab that is in use. It returns to the pool when the last handle is dropped.
pub(in crate::cuda) struct Slab {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    address: NonNull<u8>,
    len: usize,
    pool: Arc<Pool>,
}

// SAFETY: shared handles only read; a writer has checked that there is no other, see `is_unique`.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    pub(in crate::cuda) fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub(in crate::cuda) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no other handle to the slab, so that it may be written to. None can be made either while the caller's
    /// `&mut` lasts: that takes a handle to clone, or a borrow of the bytes to `find`.
    ///
    /// (`Arc::get_mut` also returns `None` for the weak reference that the pool holds.)
    pub(in crate::cuda) fn is_unique(this: &mut Arc<Self>) -> bool {
        let unique = Arc::strong_count(this) == 1;
        // Reads through handles that were dropped happen before writes through this one.
        fence(Ordering::Acquire);
        unique
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.add_idle(block);
        }
    }
}

/// Pages that are not the pool's, and that are pinned until this is dropped.
#[derive(Debug)]
pub(crate) struct ForeignPages {
    address: NonNull<u8>,
    pool: Arc<Pool>,
}

// SAFETY: the address is only passed to the driver.
unsafe impl Send for ForeignPages {}
// SAFETY: as above.
unsafe impl Sync for ForeignPages {}

impl Drop for ForeignPages {
    fn drop(&mut self) {
        self.pool.unpin_foreign(self.address);
    }
}

/// The bytes of all that a pool has pinned and of its slabs in use, and how many allocations failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolUsage {
    pub(crate) bytes: usize,
    pub(crate) in_use: usize,
    pub(crate) fallbacks: u64,
}

impl Pool {
    /// A pool of at most `limit` bytes, empty at first.
    pub(in crate::cuda) fn new(limit: usize, locker: Box<dyn PageLock>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            locker: RwLock::new(Some(locker)),
            state: Mutex::default(),
            fallbacks: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slab of at least `len` bytes, or pins a new one, which takes some 160 µs a megabyte. Returns `None`, and counts
    /// that, where the limit is reached or the pages cannot be pinned. It never waits for a slab in use, because a client may
    /// read its response slowly.
    pub(in crate::cuda) fn take(self: &Arc<Self>, len: usize) -> Option<Arc<Slab>> {
        let taken = self.take_idle(len).or_else(|| self.pin(len));
        if taken.is_none() {
            self.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn take_idle(self: &Arc<Self>, len: usize) -> Option<Arc<Slab>> {
        let max = len.max(SMALLEST).checked_mul(MAX_OVERSIZE)?;
        let mut state = self.state();
        let fits = |at: &usize| (len..=max).contains(&state.idle[*at].0.len);
        let best = (0..state.idle.len()).filter(fits).min_by_key(|&at| state.idle[at].0.len)?;
        let (block, _) = state.idle.swap_remove(best);
        Some(self.start_use(&mut state, block))
    }

    fn pin(self: &Arc<Self>, len: usize) -> Option<Arc<Slab>> {
        let size = len.max(SMALLEST).checked_next_power_of_two().filter(|size| *size <= self.limit)?;
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let locker = locker.as_deref()?;
        let mut surplus = Vec::new();
        {
            let mut state = self.state();
            // Idle slabs of other sizes are freed for it, the least recently used first.
            state.idle.sort_unstable_by_key(|(_, since)| *since);
            let idle: usize = state.idle.iter().map(|(block, _)| block.len).sum();
            if state.bytes - idle > self.limit - size {
                return None;
            }
            while state.bytes > self.limit - size {
                let (block, _) = state.idle.remove(0);
                state.bytes -= block.len;
                surplus.push(block);
            }
            state.bytes += size;
        }
        surplus.drain(..).for_each(|block| locker.unlock(block.address));
        let made = Pages::unforked(size).ok_or_else(|| "the system has no huge pages".to_owned());
        let made = made.and_then(|mut pages| {
            let address = NonNull::from(&mut *pages).cast::<u8>();
            locker.lock(address, size).map(|()| Block { address, len: size, _pages: pages })
        });
        let mut state = self.state();
        match made {
            Ok(block) => Some(self.start_use(&mut state, block)),
            Err(reason) => {
                state.bytes -= size;
                drop(state);
                tracing::warn!(
                    bytes = size,
                    reason,
                    "host memory cannot be pinned; arrays are copied through staging memory"
                );
                None
            }
        }
    }

    /// Pins `len` bytes of pages that are not the pool's. Returns `None` where that exceeds the limit, for which no idle slab is
    /// freed, or they cannot be pinned; they are copied through staging memory then.
    ///
    /// # Safety
    /// The pages stay mapped until the result is dropped.
    pub(in crate::cuda) unsafe fn pin_foreign(
        self: &Arc<Self>,
        pages: NonNull<u8>,
        len: usize,
    ) -> Option<ForeignPages> {
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let locker = locker.as_deref()?;
        {
            let mut state = self.state();
            if len > self.limit.saturating_sub(state.bytes) {
                return None;
            }
            state.bytes += len;
        }
        let pinned = locker.lock(pages, len);
        let mut state = self.state();
        if let Err(reason) = pinned {
            state.bytes -= len;
            drop(state);
            tracing::warn!(bytes = len, reason, "shared memory cannot be pinned; it is copied through staging memory");
            return None;
        }
        state.foreign.insert(pages.addr(), len);
        Some(ForeignPages { address: pages, pool: Arc::clone(self) })
    }

    fn unpin_foreign(&self, pages: NonNull<u8>) {
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let len = {
            let mut state = self.state();
            // First, so that nobody finds them while they are unpinned.
            let len = state.foreign.remove(&pages.addr()).unwrap_or(0);
            state.bytes -= len;
            len
        };
        // `close` has unpinned those that are not there any more.
        if let Some(locker) = locker.as_deref().filter(|_| len > 0) {
            locker.unlock(pages);
        }
    }

    /// Whether `bytes` lie in pages of others that are pinned.
    pub(in crate::cuda) fn is_in_foreign(&self, bytes: &[u8]) -> bool {
        let start = NonNull::from(bytes).cast::<u8>().addr();
        let state = self.state();
        state.foreign.range(..=start).next_back().is_some_and(|(address, &len)| {
            let offset = start.get() - address.get();
            offset <= len && bytes.len() <= len - offset
        })
    }

    fn start_use(self: &Arc<Self>, state: &mut State, block: Block) -> Arc<Slab> {
        let (address, len) = (block.address, block.len);
        let slab = Arc::new(Slab { block: Some(block), address, len, pool: Arc::clone(self) });
        state.in_use_bytes += len;
        state.in_use.insert(address.addr(), Arc::downgrade(&slab));
        slab
    }

    fn add_idle(&self, block: Block) {
        let mut state = self.state();
        state.in_use.remove(&block.address.addr());
        state.in_use_bytes -= block.len;
        if state.closed {
            state.bytes -= block.len;
            drop(state);
            drop(block);
        } else {
            state.idle.push((block, Instant::now()));
        }
    }

    /// The slab in use that `bytes` lie in, and their offset in it.
    pub(in crate::cuda) fn find(&self, bytes: &[u8]) -> Option<(Arc<Slab>, usize)> {
        let start = NonNull::from(bytes.first()?).addr();
        let state = self.state();
        let (&address, slab) = state.in_use.range(..=start).next_back()?;
        let slab = slab.upgrade();
        // Released first, because dropping the slab takes the lock.
        drop(state);
        let slab = slab?;
        let offset = start.get() - address.get();
        (offset < slab.len && bytes.len() <= slab.len - offset).then_some((slab, offset))
    }

    /// Frees slabs that have been idle for `ttl`, as long as `may_free` returns true.
    pub(in crate::cuda) fn trim(&self, ttl: Duration, may_free: impl Fn() -> bool) {
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let Some(locker) = locker.as_deref() else { return };
        while may_free() {
            let block = {
                let mut state = self.state();
                let Some(at) = state.idle.iter().position(|(_, since)| since.elapsed() >= ttl) else { return };
                let (block, _) = state.idle.swap_remove(at);
                state.bytes -= block.len;
                block
            };
            locker.unlock(block.address);
        }
    }

    /// Unpins all pages, including those in use, which remain readable and writable, and pins none any more.
    pub(in crate::cuda) fn close(&self) {
        let mut locker = self.locker.write().unwrap_or_else(PoisonError::into_inner);
        let Some(locker) = locker.take() else { return };
        let mut state = self.state();
        state.closed = true;
        // With the lock held, so that none of them is unmapped before.
        for &address in state.in_use.keys() {
            locker.unlock(NonNull::without_provenance(address));
        }
        for &address in std::mem::take(&mut state.foreign).keys() {
            locker.unlock(NonNull::without_provenance(address));
        }
        let idle = std::mem::take(&mut state.idle);
        idle.iter().for_each(|(block, _)| locker.unlock(block.address));
        state.bytes = state.in_use_bytes;
    }

    pub(in crate::cuda) fn usage(&self) -> PoolUsage {
        let state = self.state();
        let fallbacks = self.fallbacks.load(Ordering::Relaxed);
        PoolUsage { bytes: state.bytes, in_use: state.in_use_bytes, fallbacks }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limit", &self.limit).field("usage", &self.usage()).finish_non_exhaustive()
    }
}
