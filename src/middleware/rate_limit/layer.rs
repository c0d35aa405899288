use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use tower_layer::Layer;

use super::keyed::{ByTenant, PerKey};
use super::limit::{Shared, quota};
use super::wait::WaitLayer;
use super::{InvalidQuota, RateLimiter};

/// Lets so many calls a period through. See the [module](super).
///
/// Clones share the quota. The methods that configure the layer begin a new one, so configure first and clone after.
pub struct RateLimiterLayer<L = Shared> {
    quota: Quota,
    limit: Arc<L>,
}

/// How many keys have a quota of their own if nothing else is said: some 5 MB of them.
const MAX_KEYS: usize = 65_536;

impl RateLimiterLayer {
    /// Lets `calls` a `period` through.
    ///
    /// # Panics
    /// Where `calls` or `period` is zero, or `period` is longer than a century. [`try_new`](Self::try_new) returns an
    /// error instead, for a quota that comes from outside the program.
    #[track_caller]
    pub fn new(calls: u32, period: Duration) -> Self {
        match Self::try_new(calls, period) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets `calls` a `period` through.
    pub fn try_new(calls: u32, period: Duration) -> Result<Self, InvalidQuota> {
        let quota = quota(calls, period)?;
        Ok(Self { quota, limit: Arc::new(Shared::new(quota)) })
    }

    /// Sets how many calls can be made at once; as many as the period allows if nothing is said.
    #[must_use]
    pub fn burst(self, calls: NonZeroU32) -> Self {
        let quota = self.quota.allow_burst(calls);
        Self { quota, limit: Arc::new(Shared::new(quota)) }
    }

    /// Gives each key a quota of its own. Requests for which `key` answers `None` share one.
    ///
    /// Keys are kept, [`max_keys`](RateLimiterLayer::max_keys) of them. Where a client chooses what is in them, answer
    /// `None` for those that are long, or a hash of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_kernels::layers::RateLimiterLayer;
    ///
    /// let by_host = RateLimiterLayer::new(100, Duration::from_secs(1))
    ///     .per_key(|request: &http::Request<()>| request.uri().host().map(str::to_owned));
    /// ```
    #[must_use]
    pub fn per_key<R, K, F>(self, key: F) -> RateLimiterLayer<PerKey<K, F>>
    where
        F: Fn(&R) -> Option<K>,
        K: Hash + Eq + Clone,
    {
        self.keyed(key)
    }

    /// Gives each tenant a quota of its own. Requests without a tenant share one, and so do those of tenants whose name is
    /// [too long](crate::request::tenant_key) to be kept.
    #[must_use]
    pub fn per_tenant(self) -> RateLimiterLayer<PerKey<Arc<str>, ByTenant>> {
        self.keyed(ByTenant)
    }

    fn keyed<K: Hash + Eq + Clone, F>(self, key: F) -> RateLimiterLayer<PerKey<K, F>> {
        RateLimiterLayer { quota: self.quota, limit: Arc::new(PerKey::new(self.quota, key, MAX_KEYS)) }
    }
}

impl<K: Hash + Eq + Clone, F: Clone> RateLimiterLayer<PerKey<K, F>> {
    /// Gives the key `key` a quota of another size: a tenant that pays for more, or one that has to be slowed down. Said
    /// twice of one key, the later counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_kernels::layers::RateLimiterLayer;
    ///
    /// let second = Duration::from_secs(1);
    /// let by_tenant = RateLimiterLayer::new(100, second)
    ///     .per_tenant()
    ///     .limit_for("acme", 1000, second)
    ///     .limit_for("umbrella", 1, 10 * second);
    /// ```
    ///
    /// # Panics
    /// Where `calls` or `period` is zero, or `period` is longer than a century, as [`new`](RateLimiterLayer::new) does.
    /// [`try_limit_for`](Self::try_limit_for) returns an error instead.
    #[must_use]
    #[track_caller]
    pub fn limit_for(self, key: impl Into<K>, calls: u32, period: Duration) -> Self {
        match self.try_limit_for(key, calls, period) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`limit_for`](Self::limit_for), for a quota that comes from outside the program.
    pub fn try_limit_for(self, key: impl Into<K>, calls: u32, period: Duration) -> Result<Self, InvalidQuota> {
        let own = quota(calls, period)?;
        let mut limit = self.limit.anew(self.quota, self.limit.max_keys());
        limit.set_own(key.into(), own);
        Ok(Self { quota: self.quota, limit: Arc::new(limit) })
    }

    /// Sets how many keys have a quota of their own, 65 536 if nothing is said. Keys that are new when so many are
    /// known share the quota of the requests without a key.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        Self { quota: self.quota, limit: Arc::new(self.limit.anew(self.quota, max_keys)) }
    }
}

impl<L> RateLimiterLayer<L> {
    /// Has calls over the quota wait instead of refusing them at once: up to `max_waiting` of them at a time, each for
    /// up to `max_wait`. A call that would wait longer, or that finds so many waiting, is refused.
    ///
    /// A waiting call holds no place in the inner service: the service that was ready for it is let go, and it waits for
    /// another once it has its token. Who waits longest is not served first; a token goes to whoever asks next.
    #[must_use]
    pub fn wait(self, max_wait: Duration, max_waiting: usize) -> WaitLayer<L> {
        WaitLayer::new(self.limit, max_wait, max_waiting)
    }

    /// What the layer's services draw from.
    pub fn limit(&self) -> &L {
        &self.limit
    }
}

impl<L> RateLimiterLayer<L> {
    /// What its services ask.
    pub(crate) fn shared(&self) -> &Arc<L> {
        &self.limit
    }
}

impl<S, L> Layer<S> for RateLimiterLayer<L> {
    type Service = RateLimiter<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimiter::new(inner, Arc::clone(&self.limit))
    }
}

// By hand: a clone needs no `L: Clone`, the quota is shared.
impl<L> Clone for RateLimiterLayer<L> {
    fn clone(&self) -> Self {
        Self { quota: self.quota, limit: Arc::clone(&self.limit) }
    }
}

impl<L: fmt::Debug> fmt::Debug for RateLimiterLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiterLayer").field("quota", &self.quota).field("limit", &self.limit).finish()
    }
}
