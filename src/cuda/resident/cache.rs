//! [`Cache`]: which copies a device has, who uses them, and which are evicted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::state::{Entry, Need, State};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The memory of a copy. Dropping it frees the memory.
pub(in crate::cuda) trait Resident: Send + 'static {
    /// The device address.
    fn address(&self) -> u64;
}

/// The copies on one device, by the numbers of their groups of arrays.
///
/// It decides, and leaves it to its callers to make copies and to drop them, which calls the driver.
pub(in crate::cuda) struct Cache<M> {
    budget: u64,
    state: Mutex<State<M>>,
    /// Notified when a copy was made, or its making was given up.
    changed: Condvar,
    /// Wakes the thread that frees memory.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    fallbacks: AtomicU64,
}

/// The result of [`Cache::acquire`].
pub(super) enum Acquired<M: Resident> {
    /// There is a copy.
    Copy(Lease<M>),
    /// There is none, and the caller is to make it.
    Fill(Fill<M>),
    /// Another run makes it.
    BeingFilled,
    /// The arrays are no longer registered.
    Unregistered,
}

/// A copy that a run uses, which is not evicted until this is dropped.
pub(in crate::cuda) struct Lease<M: Resident> {
    cache: Arc<Cache<M>>,
    id: u64,
    address: u64,
}

/// The task of making a copy, given up when this is dropped.
pub(super) struct Fill<M: Resident> {
    cache: Arc<Cache<M>>,
    id: u64,
    /// Bytes that were made room for.
    bytes: u64,
    published: bool,
}

/// How much memory the copies on a device take, and how often they were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResidentUsage {
    /// The most bytes that copies may take.
    pub(crate) budget: u64,
    /// Bytes of all copies.
    pub(crate) bytes: u64,
    /// Bytes of copies that can be evicted for others.
    pub(crate) evictable: u64,
    /// Copies that runs can use.
    pub(crate) copies: usize,
    /// Inputs that found a copy.
    pub(crate) hits: u64,
    /// Copies that were made.
    pub(crate) misses: u64,
    /// Copies that were evicted to make room.
    pub(crate) evictions: u64,
    /// Inputs of which no copy could be made for want of memory.
    pub(crate) fallbacks: u64,
}

impl<M> Cache<M> {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            wake: OnceLock::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
        }
    }

    /// Sets the callback that has another thread call [`take_unwanted`](Self::take_unwanted). Called once.
    pub(in crate::cuda) fn on_unwanted(&self, wake: impl Fn() + Send + Sync + 'static) {
        assert!(self.wake.set(Box::new(wake)).is_ok(), "the callback of a cache is set once");
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock()
    }

    /// Returns whether there is a copy of this group.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.state().entries.get(&id).is_some_and(|entry| entry.memory.is_some())
    }

    /// Waits until a copy was made or given up, for at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        drop(self.changed.wait_timeout(self.state(), timeout));
    }

    /// Pins the copy of a group, whether it is there or yet to be made: it is not evicted for other copies.
    pub(super) fn pin(&self, id: u64) {
        self.state().pinned.insert(id);
    }

    /// Lets the copy of a group be evicted for other copies again.
    pub(super) fn unpin(&self, id: u64) {
        self.state().pinned.remove(&id);
    }

    /// Takes out idle copies for a run that needs memory until at least `bytes` are free, or none is left. The caller drops
    /// them.
    #[must_use = "the memory is freed when it is dropped"]
    pub(in crate::cuda) fn evict(&self, bytes: u64) -> Vec<M> {
        self.state().take_idle(bytes, Need::Run, &self.evictions)
    }

    /// As [`evict`](Self::evict), for the memory of another copy: pinned copies stay.
    #[must_use = "the memory is freed when it is dropped"]
    pub(super) fn evict_for_copy(&self, bytes: u64) -> Vec<M> {
        self.state().take_idle(bytes, Need::Copy, &self.evictions)
    }

    /// Wakes the thread that frees memory if there are idle copies.
    pub(super) fn wake_if_idle(&self) {
        let bytes = self.state().bytes_of_idle(Need::Run);
        if bytes > 0 {
            self.wake();
        }
    }

    /// Takes out what the thread that frees memory is to drop: copies of unregistered arrays, and idle ones until `shortage`
    /// bytes are free.
    #[must_use = "the memory is freed when it is dropped"]
    pub(in crate::cuda) fn take_unwanted(&self, shortage: u64) -> Vec<M> {
        let mut state = self.state();
        let retired: u64 = state.retired.iter().map(|(_, bytes)| bytes).sum();
        state.take_idle(shortage.max(retired), Need::Run, &self.evictions)
    }

    /// Frees the copy of a group whose arrays are no longer registered, once no run uses it.
    pub(super) fn retire(&self, id: u64) {
        let mut state = self.state();
        state.pinned.remove(&id);
        if let Some(entry) = state.entries.get_mut(&id) {
            entry.retired = true;
        }
        let unused = state.retire_idle(id);
        drop(state);
        if unused {
            self.wake();
        }
    }

    /// Counts an input of which no copy could be made.
    pub(super) fn count_fallback(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> ResidentUsage {
        let state = self.state();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ResidentUsage {
            budget: self.budget,
            bytes: state.bytes,
            evictable: state.bytes_of_idle(Need::Copy),
            copies: state.entries.values().filter(|entry| entry.memory.is_some()).count(),
            hits: count(&self.hits),
            misses: count(&self.misses),
            evictions: count(&self.evictions),
            fallbacks: count(&self.fallbacks),
        }
    }
}

impl<M: Resident> Cache<M> {
    /// Returns the copy of a group, or the task of making it. `is_registered` says whether the arrays still are.
    pub(super) fn acquire(self: &Arc<Self>, id: u64, is_registered: impl FnOnce() -> bool) -> Acquired<M> {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        match state.entries.get_mut(&id) {
            Some(Entry { memory: None, .. }) => Acquired::BeingFilled,
            Some(Entry { memory: Some(memory), users, last_use, .. }) => {
                (*users, *last_use) = (*users + 1, clock);
                self.hits.fetch_add(1, Ordering::Relaxed);
                Acquired::Copy(Lease { cache: Arc::clone(self), id, address: memory.address() })
            }
            // Under the lock, so that `retire` comes before this or finds the entry.
            None if !is_registered() => Acquired::Unregistered,
            None => {
                let entry = Entry { memory: None, bytes: 0, users: 1, last_use: clock, retired: false };
                state.entries.insert(id, entry);
                Acquired::Fill(Fill { cache: Arc::clone(self), id, bytes: 0, published: false })
            }
        }
    }

    fn release(&self, id: u64) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&id) {
            entry.users -= 1;
        }
        let unused = state.retire_idle(id);
        drop(state);
        if unused {
            self.wake();
        }
    }
}

impl<M: Resident> Fill<M> {
    /// Makes room for `bytes` within the budget. Returns the copies that were evicted for that, which the caller drops
    /// before it allocates; `None`, with nothing evicted, if copies that are in use or pinned take too much of it.
    pub(super) fn make_room(&mut self, bytes: u64) -> Option<Vec<M>> {
        let cache = &self.cache;
        let mut state = cache.state();
        let excess = state.bytes.saturating_add(bytes).saturating_sub(cache.budget);
        if excess > state.bytes_of_idle(Need::Copy) {
            return None;
        }
        let evicted = state.take_idle(excess, Need::Copy, &cache.evictions);
        state.bytes += bytes;
        self.bytes += bytes;
        Some(evicted)
    }

    /// Makes the copy available to all runs.
    pub(super) fn publish(mut self, memory: M) -> Lease<M> {
        let address = memory.address();
        let mut state = self.cache.state();
        if let Some(entry) = state.entries.get_mut(&self.id) {
            (entry.memory, entry.bytes) = (Some(memory), self.bytes);
        }
        self.published = true;
        drop(state);
        self.cache.misses.fetch_add(1, Ordering::Relaxed);
        self.cache.changed.notify_all();
        Lease { cache: Arc::clone(&self.cache), id: self.id, address }
    }
}

impl<M: Resident> Drop for Fill<M> {
    fn drop(&mut self) {
        if !self.published {
            let mut state = self.cache.state();
            state.entries.remove(&self.id);
            state.bytes -= self.bytes;
            drop(state);
            self.cache.changed.notify_all();
        }
    }
}

impl<M: Resident> Lease<M> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The device address of the copy.
    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl<M: Resident> Drop for Lease<M> {
    fn drop(&mut self) {
        self.cache.release(self.id);
    }
}

impl<M: Resident> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Cache<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
