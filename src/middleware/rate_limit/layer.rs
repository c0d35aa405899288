use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::keyed::{ByTenant, KeyedConfig, PerKey};
use super::limit::{Shared, quota};
use super::wait::WaitLayer;
use super::{InvalidQuota, RateLimiter};
use crate::middleware::derive::derive_clone;

/// Limits the rate of calls. See the [module](super).
///
/// Clones share the quota. The methods that configure the layer start a new one: configure first, then clone.
#[derive(Debug)]
#[must_use]
pub struct RateLimiterLayer<L = Shared> {
    limit: Arc<L>,
}

/// The state of a [`RateLimiterLayer`] with a quota per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// Keys whose quota is not full, without those that have a quota of another size.
    pub keys: usize,
}

/// The default bound on keys with a quota of their own, which take about 5 MB.
const MAX_KEYS: usize = 65_536;

impl RateLimiterLayer {
    /// Allows `calls` per `period`.
    ///
    /// # Panics
    /// If `calls` or `period` is zero, or `period` is longer than a century. [`try_new`](Self::try_new) returns an
    /// error instead, for a quota that comes from outside the program.
    #[track_caller]
    pub fn new(calls: u32, period: Duration) -> Self {
        match Self::try_new(calls, period) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Allows `calls` per `period`.
    ///
    /// # Errors
    /// If `calls` or `period` is zero, or `period` is longer than a century.
    pub fn try_new(calls: u32, period: Duration) -> Result<Self, InvalidQuota> {
        quota(calls, period).map(|quota| Self::with_limit(Shared::new(quota)))
    }

    /// Sets how many calls can be made at once. The default is the number of calls per period.
    pub fn burst(self, calls: NonZeroU32) -> Self {
        Self::with_limit(Shared::new(self.limit.quota.allow_burst(calls)))
    }

    /// Gives each key a quota of its own. Requests for which `key` returns `None` share one.
    ///
    /// Keys are stored, up to [`max_keys`](RateLimiterLayer::max_keys) of them. Where clients choose their content, return
    /// `None` for long ones, or a hash.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_kernels::layers::RateLimiterLayer;
    ///
    /// let by_host = RateLimiterLayer::new(100, Duration::from_secs(1))
    ///     .per_key(|request: &http::Request<()>| request.uri().host().map(str::to_owned));
    /// ```
    pub fn per_key<R, K, F>(self, key: F) -> RateLimiterLayer<PerKey<K, F>>
    where
        F: Fn(&R) -> Option<K>,
        K: Hash + Eq + Clone,
    {
        self.keyed(key)
    }

    /// Gives each tenant a quota of its own. Requests without a tenant share one, and so do those of tenants whose name is
    /// [too long](crate::request::tenant_key) to be stored.
    pub fn per_tenant(self) -> RateLimiterLayer<PerKey<Arc<str>, ByTenant>> {
        self.keyed(ByTenant)
    }

    fn keyed<K: Hash + Eq + Clone, F>(self, key: F) -> RateLimiterLayer<PerKey<K, F>> {
        let config = KeyedConfig { quota: self.limit.quota, key, max_keys: MAX_KEYS, overrides: HashMap::new() };
        RateLimiterLayer::with_limit(PerKey::new(config))
    }
}

impl<K: Hash + Eq + Clone, F: Clone> RateLimiterLayer<PerKey<K, F>> {
    /// Overrides the quota of one key, such as a tenant that pays for more. Of two overrides of a key the later counts.
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
    /// If `calls` or `period` is zero, or `period` is longer than a century, as [`new`](RateLimiterLayer::new) does.
    /// [`try_limit_for`](Self::try_limit_for) returns an error instead.
    #[track_caller]
    pub fn limit_for(self, key: impl Into<K>, calls: u32, period: Duration) -> Self {
        match self.try_limit_for(key, calls, period) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`limit_for`](Self::limit_for), for a quota that comes from outside the program.
    ///
    /// # Errors
    /// If `calls` or `period` is zero, or `period` is longer than a century.
    pub fn try_limit_for(self, key: impl Into<K>, calls: u32, period: Duration) -> Result<Self, InvalidQuota> {
        let mut config = self.limit.config().clone();
        config.overrides.insert(key.into(), quota(calls, period)?);
        Ok(Self::with_limit(PerKey::new(config)))
    }

    /// Sets how many keys have a quota of their own, by default 65 536. Past that, new keys share the quota of the
    /// requests without a key.
    pub fn max_keys(self, max_keys: usize) -> Self {
        Self::with_limit(PerKey::new(KeyedConfig { max_keys, ..self.limit.config().clone() }))
    }

    /// The state of the layer.
    pub fn snapshot(&self) -> RateLimitSnapshot {
        RateLimitSnapshot { keys: self.limit.len() }
    }
}

impl<L> RateLimiterLayer<L> {
    /// Delays calls over the quota instead of rejecting them: up to `max_waiting` at a time, each for up to `max_wait`. A
    /// call that would wait longer, or that finds `max_waiting` calls waiting, is rejected.
    ///
    /// A waiting call holds no permit of the inner service: it releases the one that `poll_ready` reserved and waits for
    /// another once it has its token. Tokens are not handed out in order of arrival.
    pub fn wait(self, max_wait: Duration, max_waiting: usize) -> WaitLayer<L> {
        WaitLayer::new(self.limit, max_wait, max_waiting)
    }

    /// Returns the limit that the layer's services share.
    pub fn limit(&self) -> &Arc<L> {
        &self.limit
    }

    fn with_limit(limit: L) -> Self {
        Self { limit: Arc::new(limit) }
    }
}

impl<S, L> Layer<S> for RateLimiterLayer<L> {
    type Service = RateLimiter<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimiter::new(inner, Arc::clone(&self.limit))
    }
}

derive_clone!(RateLimiterLayer::<L> { limit });
