use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::middleware::cache_key::{ByDigest, Repeatable, Repeats};
use crate::middleware::clock;

/// The answers that a [`CacheLayer`](super::CacheLayer), its clones and their services keep.
pub struct Store<K, T> {
    table: Cache<u128, Arc<Entry<K, T>>, Weights, ByDigest>,
    ttl: Option<Duration>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Of the entries: those of calls that began in an earlier one are not kept.
    generation: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Entry<K, T> {
    question: K,
    answer: T,
    /// `None` for ever.
    expires: Option<Instant>,
    bytes: u64,
}

/// What the table itself has for an entry: its slot, with the digest and the links of two lists, twice over since tables
/// grow by doubling, and the counts of an `Arc`.
const SLOT: usize = 2 * 64 + 16;

/// The table is cut into parts with a lock and a share of the bytes each, none smaller than this.
const SMALLEST_PART: u64 = 4 << 20;

/// What an entry weighs if nothing is known: how many the table makes room to remember once they are gone.
const TYPICAL: u64 = 4 << 10;

#[derive(Clone, Debug)]
struct Weights;

impl<K, T> Weighter<u128, Arc<Entry<K, T>>> for Weights {
    fn weight(&self, _: &u128, entry: &Arc<Entry<K, T>>) -> u64 {
        entry.bytes
    }
}

impl<K, T> Store<K, T> {
    pub(super) fn new(max_bytes: u64, ttl: Option<Duration>) -> Self {
        let threads = available_parallelism().map_or(1, usize::from) as u64;
        // A power of two no larger than what was asked for: rounding up would make the parts smaller.
        let parts = 1 << (max_bytes / SMALLEST_PART).clamp(1, 4 * threads).ilog2();
        let options = OptionsBuilder::new()
            .weight_capacity(max_bytes)
            .estimated_items_capacity(((max_bytes / TYPICAL) as usize).max(32 * parts as usize))
            .shards(parts as usize)
            .build()
            .expect("both capacities are given");
        Self {
            table: Cache::with_options(options, Weights, ByDigest, DefaultLifecycle::default()),
            ttl,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.table.capacity()
    }

    pub(super) fn max_entry_bytes(&self) -> u64 {
        self.table.shard_capacity()
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(super) fn entries(&self) -> usize {
        self.table.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.table.weight()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.table.clear();
    }

    pub(super) fn invalidate(&self, which: impl Fn(&K) -> bool) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.table.retain(|_, entry| !which(&entry.question));
    }
}

impl<K, T: Repeatable> Store<K, T> {
    /// The answer to a question, where it is known.
    #[inline]
    pub(super) fn find(&self, digest: u128, same: impl FnOnce(&K) -> bool) -> Option<T> {
        let known = self.table.get(&digest).filter(|entry| same(&entry.question));
        let Some(known) = known.filter(|entry| entry.expires.is_none_or(|at| self.is_before(at, digest))) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(known.answer.repeat())
    }

    /// Whether the time has not come; if it has, the entry goes.
    fn is_before(&self, expires: Instant, digest: u128) -> bool {
        let now = clock::now();
        if now < expires {
            return true;
        }
        // By now it may be another, which stays.
        self.table.remove_if(&digest, |entry| entry.expires.is_some_and(|at| at <= now));
        false
    }

    /// Keeps the answer to a question that was asked in `generation`.
    pub(super) fn insert<R, P>(&self, repeats: &P, digest: u128, held: K, answer: &T, generation: u64)
    where
        P: Repeats<R, Kept = K>,
    {
        let fixed = size_of::<Entry<K, T>>() + SLOT;
        let weigh = |question: &K, answer: &T| (fixed + repeats.weigh(question) + answer.weigh()) as u64;
        // Before anything is copied.
        if self.generation() != generation || weigh(&held, answer) > self.max_entry_bytes() {
            return;
        }
        let Some(answer) = answer.keep() else { return };
        let question = repeats.keep(held);
        let bytes = weigh(&question, &answer);
        if bytes > self.max_entry_bytes() {
            return;
        }
        // A time to live that no instant can express is none.
        let expires = self.ttl.and_then(|ttl| clock::read().checked_add(ttl));
        self.table.insert(digest, Arc::new(Entry { question, answer, expires, bytes }));
        // Whoever has cleared the table since may have done so before this was in it.
        if self.generation() != generation {
            self.table.remove(&digest);
        }
    }
}

impl<K, T> fmt::Debug for Store<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("entries", &self.entries())
            .field("bytes", &self.bytes())
            .field("max_bytes", &self.max_bytes())
            .field("ttl", &self.ttl)
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}
