//! The settings of the pipeline's layers.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};
use tower_kernels::pipeline::{
    BatchConfig, BreakerConfig, CacheConfig, CoalesceConfig, LoadShedConfig, PipelineConfig, QueueConfig, RetryConfig,
    TenantConfig, TenantsConfig,
};
use tower_kernels::request::Priority;

use super::{Config, Span};

/// Fair shares and maximum priorities of tenants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tenants {
    pub(crate) max_priority: MaxPriority,
    pub(crate) named: BTreeMap<String, Tenant>,
}

/// The share and maximum priority of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tenant {
    pub(crate) weight: NonZeroU16,
    pub(crate) max_priority: MaxPriority,
}

/// The highest priority that a request may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MaxPriority {
    Low,
    Normal,
    #[default]
    High,
}

impl From<MaxPriority> for Priority {
    fn from(max: MaxPriority) -> Self {
        match max {
            MaxPriority::Low => Self::Low,
            MaxPriority::Normal => Self::Normal,
            MaxPriority::High => Self::High,
        }
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self { weight: TenantConfig::default().weight, max_priority: MaxPriority::default() }
    }
}

impl Tenants {
    /// `verified` says whether tenants are authenticated.
    pub(crate) fn pipeline(&self, verified: bool) -> TenantsConfig {
        let mut config = TenantsConfig::default();
        (config.max_priority, config.verified) = (self.max_priority.into(), verified);
        config.named.extend(self.named.iter().map(|(name, tenant)| {
            let Tenant { weight, max_priority } = *tenant;
            (name.clone(), TenantConfig { weight, max_priority: max_priority.into() })
        }));
        config
    }
}

/// The cache. Zero bytes turn it off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    pub(crate) max_bytes: u64,
    pub(crate) ttl: Span,
    pub(crate) share_across_tenants: bool,
}

/// Coalescing of equal requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Coalesce {
    pub(crate) enabled: bool,
    pub(crate) share_across_tenants: bool,
}

/// Load shedding. A wait of zero turns it off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoadShed {
    pub(crate) max_wait: Span,
}

/// The circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CircuitBreaker {
    pub(crate) enabled: bool,
    pub(crate) consecutive_failures: u32,
    pub(crate) failure_percent: u32,
    pub(crate) agreeing_tenants: NonZeroU32,
}

/// Retries. One attempt turns them off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
}

/// The priority queue. A capacity of zero turns it off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Queue {
    pub(crate) capacity: usize,
    pub(crate) max_bytes: u64,
}

/// The concurrency limit. Zero turns it off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Concurrency {
    pub(crate) limit: usize,
}

/// Batching of small requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Batch {
    pub(crate) enabled: bool,
    pub(crate) max_requests: NonZeroUsize,
    pub(crate) max_bytes: u64,
    pub(crate) max_delay: Span,
    pub(crate) capacity: NonZeroUsize,
    pub(crate) on_cpu: bool,
}

impl Default for Cache {
    fn default() -> Self {
        let CacheConfig { max_bytes: _, ttl, share_across_tenants } = CacheConfig::default();
        Self { max_bytes: 0, ttl: Span(ttl.unwrap_or_default()), share_across_tenants }
    }
}

impl Default for LoadShed {
    fn default() -> Self {
        Self { max_wait: Span(LoadShedConfig::default().max_wait) }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        let BreakerConfig { consecutive_failures, failure_rate, agreeing_tenants } = BreakerConfig::default();
        let failure_percent = (failure_rate * 100.0) as u32;
        Self { enabled: true, consecutive_failures, failure_percent, agreeing_tenants }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1 }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let QueueConfig { capacity, max_bytes } = QueueConfig::default();
        Self { capacity, max_bytes }
    }
}

impl Default for Batch {
    fn default() -> Self {
        let BatchConfig { max_requests, max_bytes, max_delay, capacity, on_cpu } = BatchConfig::default();
        Self { enabled: true, max_requests, max_bytes, max_delay: Span(max_delay), capacity, on_cpu }
    }
}

impl Config {
    /// All settings of the pipeline but those of tenants.
    pub(crate) fn pipeline(&self) -> PipelineConfig {
        let mut config = PipelineConfig { timeout: self.timeout.0, ..PipelineConfig::default() };
        let Cache { max_bytes, ttl, share_across_tenants } = self.cache;
        // Zero means no time to live.
        let ttl = Some(ttl.0).filter(|ttl| !ttl.is_zero());
        config.cache = (max_bytes > 0).then_some(CacheConfig { max_bytes, ttl, share_across_tenants });
        config.coalesce = self
            .coalesce
            .enabled
            .then_some(CoalesceConfig { share_across_tenants: self.coalesce.share_across_tenants });
        let max_wait = self.load_shed.max_wait.0;
        config.load_shed = (!max_wait.is_zero()).then_some(LoadShedConfig { max_wait });
        config.circuit_breaker = self.circuit_breaker.enabled.then_some(BreakerConfig {
            consecutive_failures: self.circuit_breaker.consecutive_failures,
            failure_rate: f64::from(self.circuit_breaker.failure_percent) / 100.0,
            agreeing_tenants: self.circuit_breaker.agreeing_tenants,
        });
        let attempts = self.retry.attempts;
        config.retry = (attempts > 1).then_some(RetryConfig { attempts });
        let Queue { capacity, max_bytes } = self.queue;
        config.queue = (capacity > 0).then_some(QueueConfig { capacity, max_bytes });
        config.concurrency = NonZeroUsize::new(self.concurrency.limit);
        let Batch { enabled, max_requests, max_bytes, max_delay: Span(max_delay), capacity, on_cpu } = self.batch;
        config.batch = enabled.then_some(BatchConfig { max_requests, max_bytes, max_delay, capacity, on_cpu });
        config
    }
}
