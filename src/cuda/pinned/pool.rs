//! The pool of slabs: which are idle, which are lent, and how much there may be.
//!
//! A slab is a map of this process's own, in huge pages, that the driver has been told to keep in place
//! (`cuMemHostRegister`). Memory that the driver itself hands out would go with its context, so a response that outlives
//! its backend would point at nothing; these pages are only let go of then, and stay until the last holder has gone.
//!
//! Two locks. `state` is held for a moment and never across a call of the driver, but for the pool's end. `locker` is
//! held shared across calls of the driver and alone at the end, so that no page is locked into a context that is gone.

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
/// What a slab may hold times this is its size at most, so that a small array does not sit on a large slab.
const ROOMY: usize = 4;

/// Locks pages in place for a device, and lets go of them.
pub(crate) trait PageLock: Send + Sync {
    /// # Errors
    /// Why they cannot be locked.
    fn lock(&self, pages: NonNull<u8>, len: usize) -> Result<(), String>;
    /// Whatever becomes of the lock, the pages are as usable as before.
    fn unlock(&self, pages: NonNull<u8>);
}

pub(crate) struct Pool {
    limit: usize,
    /// `None` once the pool has ended.
    locker: RwLock<Option<Box<dyn PageLock>>>,
    state: Mutex<State>,
    fallbacks: AtomicU64,
}

#[derive(Default)]
struct State {
    idle: Vec<(Block, Instant)>,
    /// By their addresses.
    lent: BTreeMap<NonZero<usize>, Weak<Lent>>,
    lent_bytes: usize,
    /// Of all slabs, those that are being made included.
    bytes: usize,
    ended: bool,
}

/// Locked pages without a user.
struct Block {
    address: NonNull<u8>,
    len: usize,
    /// Not looked at any more, and unmapped with this.
    _pages: Pages,
}

// SAFETY: plain memory that has one owner; the address points into the pages.
unsafe impl Send for Block {}

/// A slab that is in use. The last holder's end gives it back.
pub(crate) struct Lent {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    address: NonNull<u8>,
    len: usize,
    pool: Arc<Pool>,
}

// SAFETY: shared holders only read; who writes has seen that there is no other, see `is_alone`.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody else holds the slab, so that its bytes may change. Nobody can begin to hold it either while the
    /// caller's `&mut` lasts: that takes a holder to clone, or a borrow of its bytes to `find`.
    pub(crate) fn is_alone(this: &mut Arc<Self>) -> bool {
        let alone = Arc::strong_count(this) == 1;
        // What the holders before have read, they have read before this writes.
        fence(Ordering::Acquire);
        alone
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.give(block);
        }
    }
}

/// How a pool is: bytes of all slabs, bytes of those in use, and how often there was none to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) bytes: usize,
    pub(crate) lent: usize,
    pub(crate) fallbacks: u64,
}

impl Pool {
    /// A pool of at most `limit` bytes, empty at first.
    pub(crate) fn new(limit: usize, locker: Box<dyn PageLock>) -> Arc<Self> {
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

    /// A slab of `len` bytes or more. `None`, which is counted, where all there may be is in use, or the pages cannot
    /// be locked. It never waits for a slab: those that are out may be with a client that reads slowly.
    ///
    /// A slab that is not there yet is made, which takes a while for each megabyte.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Arc<Lent>> {
        let taken = self.take_idle(len).or_else(|| self.make(len));
        if taken.is_none() {
            self.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn take_idle(self: &Arc<Self>, len: usize) -> Option<Arc<Lent>> {
        let most = len.max(SMALLEST).checked_mul(ROOMY)?;
        let mut state = self.state();
        let fits = |at: &usize| (len..=most).contains(&state.idle[*at].0.len);
        let best = (0..state.idle.len()).filter(fits).min_by_key(|&at| state.idle[at].0.len)?;
        let (block, _) = state.idle.swap_remove(best);
        Some(self.lend(&mut state, block))
    }

    fn make(self: &Arc<Self>, len: usize) -> Option<Arc<Lent>> {
        let size = len.max(SMALLEST).checked_next_power_of_two().filter(|size| *size <= self.limit)?;
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let locker = locker.as_deref()?;
        let mut surplus = Vec::new();
        {
            let mut state = self.state();
            // What is idle and of another size makes room, the longest unused first.
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
        let made = Pages::unforked(size).ok_or_else(|| "the system has no huge pages to give".to_owned());
        let made = made.and_then(|mut pages| {
            let address = NonNull::from(&mut *pages).cast::<u8>();
            locker.lock(address, size).map(|()| Block { address, len: size, _pages: pages })
        });
        let mut state = self.state();
        match made {
            Ok(block) => Some(self.lend(&mut state, block)),
            Err(reason) => {
                state.bytes -= size;
                drop(state);
                tracing::warn!(bytes = size, reason, "no pinned memory; copying through staging");
                None
            }
        }
    }

    fn lend(self: &Arc<Self>, state: &mut State, block: Block) -> Arc<Lent> {
        let (address, len) = (block.address, block.len);
        let lent = Arc::new(Lent { block: Some(block), address, len, pool: Arc::clone(self) });
        state.lent_bytes += len;
        state.lent.insert(address.addr(), Arc::downgrade(&lent));
        lent
    }

    fn give(&self, block: Block) {
        let mut state = self.state();
        state.lent.remove(&block.address.addr());
        state.lent_bytes -= block.len;
        if state.ended {
            state.bytes -= block.len;
            drop(state);
            drop(block);
        } else {
            state.idle.push((block, Instant::now()));
        }
    }

    /// The slab that `bytes` lie in, and where in it. That somebody holds it is plain from the borrow.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(Arc<Lent>, usize)> {
        let start = NonNull::from(bytes.first()?).addr();
        let state = self.state();
        let (&address, lent) = state.lent.range(..=start).next_back()?;
        let lent = lent.upgrade();
        // Dropping it takes the lock, if it should come to that.
        drop(state);
        let lent = lent?;
        let offset = start.get() - address.get();
        (offset < lent.len && bytes.len() <= lent.len - offset).then_some((lent, offset))
    }

    /// Lets go of slabs that nobody has used for `unused`, as long as `may` says that it is a good time.
    pub(crate) fn trim(&self, unused: Duration, may: impl Fn() -> bool) {
        let locker = self.locker.read().unwrap_or_else(PoisonError::into_inner);
        let Some(locker) = locker.as_deref() else { return };
        while may() {
            let block = {
                let mut state = self.state();
                let Some(at) = state.idle.iter().position(|(_, since)| since.elapsed() >= unused) else { return };
                let (block, _) = state.idle.swap_remove(at);
                state.bytes -= block.len;
                block
            };
            locker.unlock(block.address);
        }
    }

    /// Lets go of all pages, those in use too, which their holders do not notice, and locks none any more.
    pub(crate) fn end(&self) {
        let mut locker = self.locker.write().unwrap_or_else(PoisonError::into_inner);
        let Some(locker) = locker.take() else { return };
        let mut state = self.state();
        state.ended = true;
        // With the lock held, so that none of them is unmapped first.
        for &address in state.lent.keys() {
            locker.unlock(NonNull::without_provenance(address));
        }
        let idle = std::mem::take(&mut state.idle);
        idle.iter().for_each(|(block, _)| locker.unlock(block.address));
        state.bytes = state.lent_bytes;
    }

    pub(crate) fn level(&self) -> Level {
        let state = self.state();
        let fallbacks = self.fallbacks.load(Ordering::Relaxed);
        Level { bytes: state.bytes, lent: state.lent_bytes, fallbacks }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limit", &self.limit).field("level", &self.level()).finish_non_exhaustive()
    }
}
