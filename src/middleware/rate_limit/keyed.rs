use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter as Governor};

use super::limit::{Clock, Limit, Shared, wait_time};
use crate::middleware::clock;
use crate::request::RequestContext;
use crate::request::limits::tenant_key;

/// Which quota a request draws from. Closures `Fn(&R) -> Option<K>` implement it.
pub trait RequestKey<R> {
    /// What has a quota of its own.
    type Key;

    /// The key of `request`. Requests without one share a quota.
    fn key(&self, request: &R) -> Option<Self::Key>;
}

impl<R, K, F> RequestKey<R> for F
where
    F: Fn(&R) -> Option<K>,
{
    type Key = K;

    fn key(&self, request: &R) -> Option<K> {
        self(request)
    }
}

/// The tenant that the request is made for, as its [`RequestContext`] names it. Those with names that are
/// [too long](tenant_key) to be kept share the quota of requests without a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTenant;

impl<R: RequestContext> RequestKey<R> for ByTenant {
    type Key = Arc<str>;

    fn key(&self, request: &R) -> Option<Arc<str>> {
        tenant_key(request).cloned()
    }
}

/// A quota for each key.
pub struct PerKey<K: Hash + Eq + Clone, F> {
    limiter: Governor<Option<K>, Keys<K>, Clock, NoOpMiddleware<Nanos>>,
    /// Those whose quota is another. They are given with the configuration, so they are few, known at all times, and
    /// never swept.
    own: HashMap<K, Own>,
    key: F,
    max_keys: usize,
    /// How many keys must be known before the next sweep.
    sweep_from: AtomicUsize,
    /// When the next sweep may be made; locked for as long as one is.
    next_sweep: Mutex<Instant>,
}

/// No sweep is worth it below this.
const FEW_KEYS: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<K: Hash + Eq + Clone, F> PerKey<K, F> {
    pub(super) fn new(quota: Quota, key: F, max_keys: usize) -> Self {
        Self {
            limiter: Governor::new(quota, Keys::new(max_keys), Clock::new()),
            own: HashMap::new(),
            key,
            max_keys,
            sweep_from: AtomicUsize::new(FEW_KEYS.min(max_keys)),
            next_sweep: Mutex::new(clock::now()),
        }
    }

    /// As it is configured, with nothing taken yet.
    pub(super) fn anew(&self, quota: Quota, max_keys: usize) -> Self
    where
        F: Clone,
    {
        let own = self.own.iter().map(|(key, own)| (key.clone(), Own::new(own.quota))).collect();
        Self { own, ..Self::new(quota, self.key.clone(), max_keys) }
    }

    /// Gives `key` a quota of its own size.
    pub(super) fn set_own(&mut self, key: K, quota: Quota) {
        self.own.insert(key, Own::new(quota));
    }

    pub(super) fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// How many keys are known, without those that have a limit of their own.
    pub fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Whether no keys are known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cold]
    fn sweep(&self) {
        // Whoever finds it locked leaves the sweep to the one who locked it; nothing in it can panic half-way.
        let Ok(mut next) = self.next_sweep.try_lock() else { return };
        let now = clock::now();
        if now < *next {
            return;
        }
        self.limiter.retain_recent();
        let from = self.limiter.len().saturating_mul(2).max(FEW_KEYS).min(self.max_keys);
        self.sweep_from.store(from, Ordering::Relaxed);
        *next = now + SWEEP_INTERVAL;
    }
}

impl<R, K, F> Limit<R> for PerKey<K, F>
where
    K: Hash + Eq + Clone,
    F: RequestKey<R, Key = K>,
{
    fn take(&self, request: &R) -> Result<(), Duration> {
        if self.limiter.len() >= self.sweep_from.load(Ordering::Relaxed) {
            self.sweep();
        }
        let key = self.key.key(request);
        if !self.own.is_empty()
            && let Some(limit) = self.own_limit(key.as_ref())
        {
            return limit.take(request);
        }
        self.limiter.check_key(&key).map_err(|not_until| wait_time(&not_until, self.limiter.clock()))
    }
}

impl<K: Hash + Eq + Clone, F> PerKey<K, F> {
    // Apart, so that where no key has one it costs the comparison before it.
    #[inline(never)]
    fn own_limit(&self, key: Option<&K>) -> Option<&Shared> {
        self.own.get(key?).map(|own| &own.limit)
    }
}

impl<K: Hash + Eq + Clone, F> fmt::Debug for PerKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey")
            .field("keys", &self.len())
            .field("max_keys", &self.max_keys)
            .field("own", &self.own.len())
            .finish_non_exhaustive()
    }
}

/// The limit of one key.
struct Own {
    quota: Quota,
    limit: Shared,
}

impl Own {
    fn new(quota: Quota) -> Self {
        Self { quota, limit: Shared::new(quota) }
    }
}

/// The quotas by key, at most `max` of them, and the one that all the other requests share.
struct Keys<K: Hash + Eq + Clone> {
    states: DashMapStateStore<K>,
    rest: InMemoryState,
    /// Kept beside the map, whose own count takes every one of its locks. Two threads may each find room for one key
    /// more, so the bound can be passed by as many as there are threads.
    len: AtomicUsize,
    max: usize,
}

impl<K: Hash + Eq + Clone> Keys<K> {
    fn new(max: usize) -> Self {
        Self { states: DashMapStateStore::default(), rest: InMemoryState::default(), len: AtomicUsize::new(0), max }
    }
}

impl<K: Hash + Eq + Clone> StateStore for Keys<K> {
    type Key = Option<K>;

    fn measure_and_replace<T, F, E>(&self, key: &Option<K>, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Some(key) = key else { return self.rest.measure_and_replace(&NotKeyed::NonKey, f) };
        if let Some(state) = self.states.get(key) {
            return state.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if self.len.load(Ordering::Relaxed) >= self.max {
            return self.rest.measure_and_replace(&NotKeyed::NonKey, f);
        }
        let state = self.states.entry(key.clone()).or_insert_with(|| {
            self.len.fetch_add(1, Ordering::Relaxed);
            InMemoryState::default()
        });
        state.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<Option<K>> for Keys<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&self.states, drop_below);
        self.len.store(self.states.len(), Ordering::Relaxed);
    }

    fn shrink_to_fit(&self) {
        self.states.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
