use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::middleware::rate_limit::InvalidQuota;
use crate::request::Priority;

/// Which layers there are, and what they are set to. `None` turns a layer off. The [module](super) has the order.
///
/// Fields may be added in a minor version, so end with `..Default::default()`, in this and in those within:
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
    /// The most that a call may take, unless its own deadline is nearer.
    pub timeout: Duration,
    /// What tenants may take of the machine beside each other.
    pub tenants: TenantsConfig,
    /// How many calls each tenant may make.
    pub rate_limit: Option<RateLimitConfig>,
    /// Answers of pure kernels that are kept for the next who asks the same. Needs the feature `cache`.
    pub cache: Option<CacheConfig>,
    /// Whether equal calls of pure kernels share a run while they are in flight.
    pub coalesce: Option<CoalesceConfig>,
    /// How long a call may have to wait for its turn.
    pub load_shed: Option<LoadShedConfig>,
    /// When calls of a kernel are refused because too many of them have failed.
    pub circuit_breaker: Option<BreakerConfig>,
    /// Further attempts of calls of pure kernels that failed in passing.
    pub retry: Option<RetryConfig>,
    /// How many calls may wait while the kernels are not ready.
    pub queue: Option<QueueConfig>,
    /// How many calls run at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Which requests share a run of the machine that the pipeline is put [over](super::PipelineLayer::over).
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

/// Fair shares of the machine, and the priorities that may be asked for.
///
/// While several tenants have calls waiting, each is served in proportion to its weight, by the time that its calls take. A
/// tenant that asks for less than its share gets all that it asks for. A priority is one among the calls of the same tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantsConfig {
    /// The highest priority that calls of tenants who are not named, and of nobody, may have. One that asks for more has this.
    pub max_priority: Priority,
    /// What other tenants may. Those that are not named here have the weight 1.
    pub named: BTreeMap<String, TenantConfig>,
    /// Whether somebody has verified the tenants' names. If not, anyone could multiply their share by making up names, so
    /// all that are not [`named`](Self::named) share one, with the calls of nobody.
    pub verified: bool,
}

impl Default for TenantsConfig {
    /// Any priority, none named, all verified.
    fn default() -> Self {
        Self { max_priority: Priority::High, named: BTreeMap::new(), verified: true }
    }
}

/// What one tenant may take of the machine beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantConfig {
    /// How much it is served for 1 of a tenant of weight 1. More than 32 767 counts as that.
    pub weight: NonZeroU16,
    /// The highest priority that its calls may have. One that asks for more has this.
    pub max_priority: Priority,
}

impl Default for TenantConfig {
    /// Weight 1, any priority.
    fn default() -> Self {
        Self { weight: NonZeroU16::MIN, max_priority: Priority::High }
    }
}

/// Calls that tenants may make. By default there is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimitConfig {
    /// What each tenant may.
    pub each: QuotaConfig,
    /// What those may of whom something else is said.
    pub tenants: BTreeMap<String, QuotaConfig>,
}

/// So many calls at once, and the time in which as many come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// How many.
    pub calls: u32,
    /// In what time.
    pub period: Duration,
}

impl Default for QuotaConfig {
    /// No limit.
    fn default() -> Self {
        Self::UNLIMITED
    }
}

impl QuotaConfig {
    /// As good as no limit: the most that can be counted.
    pub const UNLIMITED: Self = Self { calls: u32::MAX, period: Duration::from_secs(1) };

    /// `rate` calls a second, of which `burst` can be made at once; a second's worth where nothing is said.
    pub fn per_second(rate: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        match burst {
            None => Self { calls: rate.get(), period: Duration::from_secs(1) },
            Some(burst) => Self { calls: burst.get(), period: Duration::from_secs(burst.get().into()) / rate.get() },
        }
    }
}

/// Answers that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The memory that they may take.
    pub max_bytes: u64,
    /// How long they are given again; for as long as there is room where nothing is said.
    pub ttl: Option<Duration>,
    /// Whether a tenant is given what another has asked for. By the time that an answer takes it can tell.
    pub across_tenants: bool,
}

impl Default for CacheConfig {
    /// 256 MiB, for ten minutes, each tenant on its own.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, ttl: Some(Duration::from_secs(600)), across_tenants: false }
    }
}

/// Runs that are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoalesceConfig {
    /// Whether a tenant may join the run of another. By the time that an answer takes it can tell.
    pub across_tenants: bool,
}

/// Calls that are refused because of what is ahead of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadShedConfig {
    /// The most that a call of high priority may have to wait; one of normal priority 0.8 of it, and one of low half, and
    /// both half of that while overload lasts. One that would not be done by its deadline is refused in any case.
    pub max_wait: Duration,
}

impl Default for LoadShedConfig {
    /// 5 seconds.
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(5) }
    }
}

/// When calls of a kernel are refused because too many of them have failed.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// After so many failures in a row.
    pub consecutive_failures: u32,
    /// When this share of the calls has failed, of those of the last ten seconds, if they are twenty or more.
    pub failure_rate: f64,
    /// What fails for a tenant opens the circuit of that tenant and kernel alone. Once the circuits of this many tenants are
    /// open at the same time, calls of the kernel are refused to all.
    pub agreeing_tenants: NonZeroU32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        const THREE: NonZeroU32 = NonZeroU32::new(3).expect("not zero");
        Self { consecutive_failures: 20, failure_rate: 0.5, agreeing_tenants: THREE }
    }
}

/// Further attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// How many attempts a call has in all, the first included: 1 at least.
    pub attempts: u32,
}

impl Default for RetryConfig {
    /// 3 attempts.
    fn default() -> Self {
        Self { attempts: 3 }
    }
}

/// Calls that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// How many.
    pub capacity: usize,
    /// What their payloads may take together.
    pub max_bytes: u64,
}

impl Default for QueueConfig {
    /// 1 024 calls, 1 GiB.
    fn default() -> Self {
        Self { capacity: 1024, max_bytes: 1 << 30 }
    }
}

/// Runs that small requests for one kernel share, as a [`BatchedLayer`](crate::backends::BatchedLayer) has them do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// How many requests share a run at most.
    pub max_requests: NonZeroUsize,
    /// What a run moves at most, or does the work of it. A request for more runs alone.
    pub max_bytes: u64,
    /// How long a run waits for more requests though there is a lane for it. With nothing, they are those that come while
    /// the lanes are busy.
    pub max_delay: Duration,
    /// How many requests wait for a run, or alone for a lane. They have had their turn, and wait as they came. The priority queue
    /// holds the rest, by priority, and gives some 150 000 turns a second: with less room here than there are callers, no more
    /// than that are answered.
    pub capacity: NonZeroUsize,
    /// Whether they share runs on a machine without CUDA devices as well. The [module](super) says what that gains.
    pub on_cpu: bool,
}

impl Default for BatchConfig {
    /// On CUDA devices, up to 256 requests or 16 MiB a run, without a delay; 16 384 wait.
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

/// A [`PipelineConfig`] of which no pipeline can be made. Printed, it names the field and says what is wrong with it.
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

    /// Which field it is, such as `retry.attempts` or `rate_limit.tenants.acme`.
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
