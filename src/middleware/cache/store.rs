use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::middleware::cache_key::{CacheKey, Cacheable};
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;

/// The entries of a [`CacheLayer`](super::CacheLayer), which its clones and their services share.
pub struct Store<K, T> {
    table: Cache<u128, Arc<Entry<K, T>>, EntrySize>,
    ttl: Option<Duration>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// The number of invalidations: responses of calls that began before the last are not inserted.
    generation: AtomicU64,
}

/// The state of a [`CacheLayer`](super::CacheLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CacheSnapshot {
    /// Calls whose response was in the cache.
    pub hits: u64,
    /// Calls with a key whose response was not in the cache.
    pub misses: u64,
    /// Cached responses.
    pub entries: usize,
    /// Bytes that the entries take.
    pub bytes: u64,
    /// The most bytes that the entries may take.
    pub max_bytes: u64,
    /// The most bytes that one entry may take. From 8 MiB on the cache is split into shards of equal size, each with a lock
    /// of its own, and an entry must fit a shard.
    pub max_entry_bytes: u64,
    /// How long a response is returned again; `None` if it does not expire.
    pub ttl: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Entry<K, T> {
    key: K,
    response: T,
    /// `None` if it does not expire.
    expires: Option<Instant>,
    bytes: u64,
}

/// The table's overhead for an entry: a slot with the digest and the links of two lists, twice as tables grow by doubling,
/// and the counts of an `Arc`.
const SLOT_BYTES: usize = 2 * 64 + 16;
const MIN_SHARD_BYTES: u64 = 4 << 20;
/// From which the table estimates how many evicted entries it remembers.
const TYPICAL_ENTRY_BYTES: u64 = 4 << 10;

#[derive(Clone, Debug)]
struct EntrySize;

impl<K, T> Weighter<u128, Arc<Entry<K, T>>> for EntrySize {
    fn weight(&self, _: &u128, entry: &Arc<Entry<K, T>>) -> u64 {
        entry.bytes
    }
}

impl<K, T> Store<K, T> {
    pub(super) fn new(max_bytes: u64, ttl: Option<Duration>) -> Self {
        let threads = available_parallelism().map_or(1, usize::from) as u64;
        // Rounded down to a power of two, as the table would round up and make the shards smaller.
        let shards = 1 << (max_bytes / MIN_SHARD_BYTES).clamp(1, 4 * threads).ilog2();
        let options = OptionsBuilder::new()
            .weight_capacity(max_bytes)
            .estimated_items_capacity(((max_bytes / TYPICAL_ENTRY_BYTES) as usize).max(32 * shards))
            .shards(shards)
            .build()
            .expect("both capacities are set");
        let lifecycle = DefaultLifecycle::default();
        Self {
            table: Cache::with_options(options, EntrySize, RandomState::new(), lifecycle),
            ttl,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn snapshot(&self) -> CacheSnapshot {
        CacheSnapshot {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.table.len(),
            bytes: self.table.weight(),
            max_bytes: self.table.capacity(),
            max_entry_bytes: self.table.shard_capacity(),
            ttl: self.ttl,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn invalidate(&self, is_stale: impl Fn(&K) -> bool) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.table.retain(|_, entry| !is_stale(&entry.key));
    }
}

impl<K, T: Cacheable> Store<K, T> {
    /// Returns the response for a key, if it is cached and has not expired.
    pub(super) fn get(&self, digest: u128, is_equal: impl FnOnce(&K) -> bool) -> Option<T> {
        let is_expired = |entry: &Arc<Entry<K, T>>| entry.expires.is_some_and(|at| at <= clock::now());
        let mut entry = self.table.get(&digest).filter(|entry| is_equal(&entry.key));
        if entry.as_ref().is_some_and(is_expired) {
            // It may have been replaced by one that has not expired.
            self.table.remove_if(&digest, is_expired);
            entry = None;
        }
        let counter = if entry.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        entry.map(|entry| entry.response.to_response())
    }
}

/// A key whose response is to be cached.
pub(super) struct Miss<P, K, T> {
    pub(super) key: K,
    pub(super) digest: u128,
    /// That in which the call began.
    pub(super) generation: u64,
    pub(super) cache_key: Arc<P>,
    pub(super) store: Arc<Store<K, T>>,
}

impl<P, K, T: Cacheable> Miss<P, K, T> {
    /// Inserts the response of the call.
    pub(super) fn insert<R>(self, response: &T)
    where
        P: CacheKey<R, OwnedKey = K>,
    {
        let Self { key, digest, generation, cache_key, store } = self;
        let fixed = size_of::<Entry<K, T>>() + SLOT_BYTES;
        let bytes = |key: &K, response: &T| (fixed + cache_key.weight(key) + response.weight()) as u64;
        // First, as the copy of a large response may be as large.
        if store.generation() != generation || bytes(&key, response) > store.table.shard_capacity() {
            return;
        }
        let Some(response) = response.to_cached() else { return };
        let key = cache_key.compact(key);
        let bytes = bytes(&key, &response);
        // A time that does not fit an `Instant` is never.
        let expires = store.ttl.and_then(|ttl| clock::read().checked_add(ttl));
        store.table.insert(digest, Arc::new(Entry { key, response, expires, bytes }));
        // An invalidation since the first check may not have seen the entry.
        if store.generation() != generation {
            store.table.remove(&digest);
        }
    }
}

derive_debug!(Store::<K, T> { hits, misses, ttl });
