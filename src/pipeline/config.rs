use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::middleware::rate_limit::InvalidQuota;
use crate::request::Priority;

/// The settings of a pipeline's layers. `None` turns a layer off. The [module](super) documents their order.
///
/// Fields may be added in a minor version, so end with `..Default::default()`, here and in nested settings:
///
/// ```
/// use std::time::Duration;
/// use tower_kernels::pipeline::{PipelineConfig, RetryConfig};
///
/// let config = PipelineConfig {
///     timeout: Duration::from_secs(5),
///     retry: Some(RetryConfig { attempts: 5, ..Default::default() }),
///     cache: None,
///     ..Default::default()
/// };
/// assert!(config.queue.is_some());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineConfig {
    /// Timeout of a call, unless its own deadline is earlier.
    pub timeout: Duration,
    /// Fair shares and maximum priorities of tenants.
    pub tenants: TenantsConfig,
    /// Rate limits of tenants.
    pub rate_limit: Option<RateLimitConfig>,
    /// Cache of the responses of pure kernels. Needs the feature `cache`.
    pub cache: Option<CacheConfig>,
    /// Sharing of one run by equal calls of pure kernels in flight.
    pub coalesce: Option<CoalesceConfig>,
    /// Rejection of calls whose expected wait is too long.
    pub load_shed: Option<LoadShedConfig>,
    /// Rejection of calls of a kernel that fails too often.
    pub circuit_breaker: Option<BreakerConfig>,
    /// Retries of calls of pure kernels that failed transiently.
    pub retry: Option<RetryConfig>,
    /// Queue of calls while the kernels are not ready.
    pub queue: Option<QueueConfig>,
    /// Maximum number of calls that run at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Batching of requests for one kernel, in a pipeline made by [`over`](super::PipelineLayer::over).
    pub batch: Option<BatchConfig>,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            tenants: TenantsConfig::default(),
            rate_limit: None,
            cache: None,
            coalesce: None,
            load_shed: Some(LoadShedConfig::default()),
            circuit_breaker: Some(BreakerConfig::default()),
            retry: None,
            queue: Some(QueueConfig::default()),
            concurrency: None,
            batch: None,
        }
    }
}

/// Fair shares and maximum priorities of tenants.
///
/// While several tenants have calls waiting, each is served in proportion to its weight, by the time that its calls
/// take. A tenant that asks for less than its share gets all that it asks for. A priority orders the calls of one
/// tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantsConfig {
    /// Maximum priority of calls of other tenants and of calls without a tenant. Higher priorities are lowered to it.
    pub max_priority: Priority,
    /// Settings of tenants by name. Others have weight 1.
    pub named: BTreeMap<String, TenantConfig>,
    /// Whether the names of tenants are authenticated. If not, a client could multiply its share by inventing names, so
    /// all tenants that are not [`named`](Self::named) share one, together with calls without a tenant.
    pub verified: bool,
}

impl Default for TenantsConfig {
    /// Any priority, no named tenants, verified names.
    fn default() -> Self {
        Self { max_priority: Priority::High, named: BTreeMap::new(), verified: true }
    }
}

/// The share and maximum priority of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// Weight of the tenant's share. Tenants that are not named have 1. Capped at 32 767.
    pub weight: NonZeroU16,
    /// Maximum priority of its calls. Higher priorities are lowered to it.
    pub max_priority: Priority,
}

impl Default for TenantConfig {
    /// Weight 1, any priority.
    fn default() -> Self {
        Self { weight: NonZeroU16::MIN, max_priority: Priority::High }
    }
}

/// Rate limits of tenants. By default there is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimitConfig {
    /// Quota of each tenant without one of its own.
    pub default: QuotaConfig,
    /// Per-tenant overrides.
    pub tenants: BTreeMap<String, QuotaConfig>,
}

/// Burst size and refill period of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Maximum number of calls at once.
    pub burst: u32,
    /// Time in which a used burst is refilled.
    pub period: Duration,
}

impl Default for QuotaConfig {
    /// No limit.
    fn default() -> Self {
        Self::UNLIMITED
    }
}

impl QuotaConfig {
    /// No limit in practice: the largest quota that can be counted.
    pub const UNLIMITED: Self = Self { burst: u32::MAX, period: Duration::from_secs(1) };

    /// `rate` calls per second, with bursts of `burst`, by default the calls of one second.
    pub fn per_second(rate: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        match burst {
            None => Self { burst: rate.get(), period: Duration::from_secs(1) },
            Some(burst) => Self { burst: burst.get(), period: Duration::from_secs(burst.get().into()) / rate.get() },
        }
    }
}

/// Settings of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Memory that cached responses may use.
    pub max_bytes: u64,
    /// Time to live of a response. Without it, responses are evicted only to make space for others.
    pub ttl: Option<Duration>,
    /// Whether tenants share cached responses. A tenant can then observe by response times what others have requested.
    pub share_across_tenants: bool,
}

impl Default for CacheConfig {
    /// 256 MiB, ten minutes, not shared across tenants.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, ttl: Some(Duration::from_secs(600)), share_across_tenants: false }
    }
}

/// Settings of coalescing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoalesceConfig {
    /// Whether calls of different tenants are coalesced. A tenant can then observe by response times what others have
    /// requested.
    pub share_across_tenants: bool,
}

/// Settings of load shedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadShedConfig {
    /// Longest expected wait of an admitted call of high priority. The bound is 0.8 of it for normal priority and half
    /// of it for low, and both are halved while overload lasts. A call that would miss its deadline is rejected in any
    /// case.
    pub max_wait: Duration,
}

impl Default for LoadShedConfig {
    /// 5 seconds.
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(5) }
    }
}

/// Settings of the circuit breaker.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Consecutive failures that open the circuit.
    pub consecutive_failures: u32,
    /// Failure rate over the last ten seconds that opens the circuit, above 0 and at most 1; counted from twenty calls
    /// on.
    pub failure_rate: f64,
    /// Number of tenants whose circuits for a kernel must be open before it opens for all tenants. Until then, failures
    /// of a tenant open only the circuit of that tenant and kernel.
    pub agreeing_tenants: NonZeroU32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        const THREE: NonZeroU32 = NonZeroU32::new(3).expect("not zero");
        Self { consecutive_failures: 20, failure_rate: 0.5, agreeing_tenants: THREE }
    }
}

/// Settings of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Maximum attempts of a call, the first included. At least 1.
    pub attempts: u32,
}

impl Default for RetryConfig {
    /// 3 attempts.
    fn default() -> Self {
        Self { attempts: 3 }
    }
}

/// Settings of the priority queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Maximum number of calls in the queue.
    pub capacity: usize,
    /// Maximum payload bytes of all calls in the queue.
    pub max_bytes: u64,
}

impl Default for QueueConfig {
    /// 1 024 calls, 1 GiB.
    fn default() -> Self {
        Self { capacity: 1024, max_bytes: 1 << 30 }
    }
}

/// Settings of batching, by a [`BatchedLayer`](crate::backends::BatchedLayer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Maximum number of requests in a batch.
    pub max_requests: NonZeroUsize,
    /// Maximum bytes that a batch moves, or the equivalent in work. A request above it runs alone.
    pub max_bytes: u64,
    /// How long a batch waits for more requests while a worker is free. With zero, a batch is what arrives while all
    /// workers are busy.
    pub max_delay: Duration,
    /// Maximum number of requests that wait for a batch or a worker, first in, first out. The priority queue holds the
    /// others. It serves about 150 000 calls per second, which limits throughput if the capacity is below the number of
    /// callers.
    pub capacity: NonZeroUsize,
    /// Whether requests are batched on a machine without CUDA devices as well. The [module](super) documents when that
    /// helps.
    pub on_cpu: bool,
}

impl Default for BatchConfig {
    /// On CUDA devices, up to 256 requests or 16 MiB, no delay, capacity 16 384.
    fn default() -> Self {
        const REQUESTS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
        const CAPACITY: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
        Self {
            max_requests: REQUESTS,
            max_bytes: 16 << 20,
            max_delay: Duration::ZERO,
            capacity: CAPACITY,
            on_cpu: false,
        }
    }
}

/// The error for an invalid value in a [`PipelineConfig`]. Its text names the field.
#[derive(Clone, Debug, PartialEq)]
pub struct InvalidPipeline {
    field: Cow<'static, str>,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Reason {
    #[error(transparent)]
    Quota(InvalidQuota),
    #[error("{0}")]
    Text(&'static str),
}

impl InvalidPipeline {
    pub(super) fn new(field: impl Into<Cow<'static, str>>, reason: Reason) -> Self {
        Self { field: field.into(), reason }
    }

    /// Returns the invalid field, such as `retry.attempts` or `rate_limit.tenants.acme`.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for InvalidPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, reason } = self;
        write!(f, "{field}: {reason}")
    }
}

impl Error for InvalidPipeline {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Quota(quota) => Some(quota),
            Reason::Text(_) => None,
        }
    }
}
