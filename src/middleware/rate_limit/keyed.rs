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

/// Chooses the quota that a request draws from. Closures `Fn(&R) -> Option<K>` implement it.
pub trait RequestKey<R> {
    /// The type of the key; each key has a quota of its own.
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

/// Gives each tenant of [`RequestContext`] a quota. Tenants with a name that is [too long](tenant_key) to be stored share
/// the quota of requests without a tenant.
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
    config: KeyedConfig<K, F>,
    limiter: Governor<Option<K>, Keys<K>, Clock, NoOpMiddleware<Nanos>>,
    /// The limits of the keys with a quota of another size. They are few and never swept.
    overrides: HashMap<K, Shared>,
    /// The number of keys from which on a sweep is made.
    sweep_from: AtomicUsize,
    /// When the next sweep may be made; locked during a sweep.
    next_sweep: Mutex<Instant>,
}

#[derive(Clone)]
pub(super) struct KeyedConfig<K, F> {
    pub(super) quota: Quota,
    pub(super) key: F,
    pub(super) max_keys: usize,
    /// Quotas of another size, by key.
    pub(super) overrides: HashMap<K, Quota>,
}

/// Fewer keys than this are not swept.
const FEW_KEYS: usize = 1024;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<K: Hash + Eq + Clone, F> PerKey<K, F> {
    pub(super) fn new(config: KeyedConfig<K, F>) -> Self {
        Self {
            limiter: Governor::new(config.quota, Keys::new(config.max_keys), Clock::new()),
            overrides: config.overrides.iter().map(|(key, quota)| (key.clone(), Shared::new(*quota))).collect(),
            sweep_from: AtomicUsize::new(FEW_KEYS.min(config.max_keys)),
            next_sweep: Mutex::new(clock::now()),
            config,
        }
    }

    pub(super) fn config(&self) -> &KeyedConfig<K, F> {
        &self.config
    }

    /// Keys whose quota is not full, without those that have a quota of another size.
    pub(super) fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Removes the keys whose quota is full again.
    fn sweep(&self) {
        // A sweep in progress suffices.
        let Ok(mut next) = self.next_sweep.try_lock() else { return };
        let now = clock::now();
        if now < *next {
            return;
        }
        self.limiter.retain_recent();
        let from = self.limiter.len().saturating_mul(2).max(FEW_KEYS).min(self.config.max_keys);
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
        let key = self.config.key.key(request);
        if let Some(own) = key.as_ref().and_then(|key| self.overrides.get(key)) {
            return own.take(request);
        }
        self.limiter.check_key(&key).map_err(|not_until| wait_time(&not_until, self.limiter.clock()))
    }
}

impl<K: Hash + Eq + Clone, F> fmt::Debug for PerKey<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey")
            .field("keys", &self.len())
            .field("max_keys", &self.config.max_keys)
            .field("overrides", &self.overrides.len())
            .finish_non_exhaustive()
    }
}

/// The state of the quotas: one for each of at most `max` keys, and one that all other requests share.
struct Keys<K: Hash + Eq + Clone> {
    states: DashMapStateStore<K>,
    common: InMemoryState,
    /// The map's own count takes each of its locks, so it is counted here. Two threads may each add the last key, so the
    /// bound can be exceeded by the number of threads.
    len: AtomicUsize,
    max: usize,
}

impl<K: Hash + Eq + Clone> Keys<K> {
    fn new(max: usize) -> Self {
        Self { states: DashMapStateStore::default(), common: InMemoryState::default(), len: AtomicUsize::new(0), max }
    }
}

impl<K: Hash + Eq + Clone> StateStore for Keys<K> {
    type Key = Option<K>;

    fn measure_and_replace<T, F, E>(&self, key: &Option<K>, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Some(key) = key else { return self.common.measure_and_replace(&NotKeyed::NonKey, f) };
        if let Some(state) = self.states.get(key) {
            return state.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if self.len.load(Ordering::Relaxed) >= self.max {
            return self.common.measure_and_replace(&NotKeyed::NonKey, f);
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
