use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;

use super::backend::PipelineBackend;
use super::config::{
    BatchConfig, InvalidPipeline, PipelineConfig, QuotaConfig, RateLimitConfig, Reason, TenantsConfig,
};
use super::handle::PipelineHandle;
#[cfg(feature = "cache")]
use super::service::KernelStore;
use super::service::TenantLimits;
use super::service::{
    Again, Cached, Coalesced, Guarded, Kernels, Limited, LocalPipeline, Queued, RateLimited, ReadyPipeline, Retried,
    Shared, Shed, Timely,
};
use super::step::{Apart, Step};
use super::tenants::Tenants;
use crate::backends::{BatchedLayer, Local};
#[cfg(feature = "cache")]
use crate::layers::CacheLayer;
use crate::layers::{
    CircuitBreakerLayer, CoalesceLayer, ConcurrencyLayer, LoadShedLayer, MetricsLayer, PriorityQueueLayer,
    RateLimiterLayer, RetryLayer, TimeoutLayer, TracingLayer,
};
use crate::middleware::circuit_breaker::{CircuitBreaker, PerOperation};
use crate::middleware::coalesce::CoalesceHandle;
use crate::middleware::load_shed::{LoadShed, Predicted};
use crate::middleware::rate_limit::RateLimiter;
use crate::service::{KernelRegistry, KernelService, PureKernels};

/// Stacks the layers of a [`PipelineConfig`] around kernels. See the [module](super).
///
/// [`over`](Self::over) puts them over a machine, with the runs that requests share. As a [`Layer`] it goes around a service
/// of kernels that has its backend already; whether requests share runs is that backend's, and `batch` says nothing of it.
///
/// Clones, and all pipelines that they make, share limits, counts, circuits and what is kept; each pipeline has a queue
/// and shared runs of its own. Printed, it is the order that it makes, a line a layer.
#[derive(Clone)]
pub struct PipelineLayer {
    pub(super) config: Arc<PipelineConfig>,
    pub(super) registry: Arc<KernelRegistry>,
    /// Of one seed, so that a tenant has the same share in all pipelines.
    tenants: Arc<Tenants>,
    pub(super) parts: Parts,
}

/// The layers, in the order of the module's table.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) metrics: MetricsLayer,
    /// What tenants may, where they may not all they like.
    rate_limit: Arc<Option<Arc<TenantLimits>>>,
    #[cfg(feature = "cache")]
    pub(super) cache: CacheLayer<PureKernels, KernelStore>,
    shared: PureKernels,
    pub(super) coalesce: CoalesceHandle,
    pub(super) load_shed: Option<LoadShedLayer<Predicted>>,
    pub(super) breaker: Option<CircuitBreakerLayer<PerOperation>>,
    timeout: TimeoutLayer,
    /// Of one attempt where nothing is tried again.
    pub(super) retry: RetryLayer<Again>,
    pub(super) queue: Option<PriorityQueueLayer>,
    pub(super) concurrency: Option<ConcurrencyLayer>,
    pub(super) batch: Option<BatchedLayer>,
}

/// How many kernels have time series of their own, where there are no more.
const OPERATIONS: usize = 512;
/// The most that ever have.
const MOST_OPERATIONS: usize = 1024;

impl PipelineLayer {
    /// The layers that `config` asks for, around kernels of `registry`.
    ///
    /// # Errors
    /// [`InvalidPipeline`], which says which value is wrong.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: PipelineConfig) -> Result<Self, InvalidPipeline> {
        let registry = registry.into();
        let pure = |across: bool| {
            let pure = PureKernels::new(Arc::clone(&registry));
            if across { pure.across_tenants() } else { pure }
        };
        if cfg!(not(feature = "cache")) && config.cache.is_some() {
            let reason = "the cache is not part of this program, which is built without the feature `cache`";
            return Err(InvalidPipeline::new("cache", Reason::Text(reason)));
        }
        if config.retry.as_ref().is_some_and(|retry| retry.attempts == 0) {
            return Err(InvalidPipeline::new("retry.attempts", Reason::Text("must be at least 1")));
        }
        let kernels = registry.list();
        // Where not all can have series, those that are called first get them, and not those that come first by id.
        let known = if kernels.len() <= MOST_OPERATIONS { &*kernels } else { &[] };
        let metrics = MetricsLayer::new()
            .max_operations(kernels.len().clamp(OPERATIONS, MOST_OPERATIONS))
            .operations(known.iter().map(|kernel| &kernel.info().id));
        #[cfg(feature = "cache")]
        let cache = match &config.cache {
            Some(cache) => {
                let layer = CacheLayer::new(cache.max_bytes, pure(cache.across_tenants));
                match cache.ttl {
                    Some(ttl) => layer.ttl(ttl),
                    None => layer,
                }
            }
            None => CacheLayer::new(0, PureKernels::none()),
        };
        let shared = config.coalesce.as_ref().map_or(PureKernels::none(), |coalesce| pure(coalesce.across_tenants));
        let breaker = match &config.circuit_breaker {
            Some(breaker) if !(breaker.failure_rate > 0.0 && breaker.failure_rate <= 1.0) => {
                let reason = Reason::Text("must be above 0 and at most 1");
                return Err(InvalidPipeline::new("circuit_breaker.failure_rate", reason));
            }
            Some(breaker) => Some(
                CircuitBreakerLayer::new()
                    .consecutive_failures(breaker.consecutive_failures)
                    .failure_rate(breaker.failure_rate)
                    .per_operation()
                    .per_tenant(breaker.agreeing_tenants),
            ),
            None => None,
        };
        let pure_again: Again = {
            let registry = Arc::clone(&registry);
            Box::new(move |request| registry.is_pure(&request.kernel_id))
        };
        let retry = RetryLayer::new(pure_again).attempts(config.retry.as_ref().map_or(1, |retry| retry.attempts));
        let parts = Parts {
            metrics,
            rate_limit: Arc::new(config.rate_limit.as_ref().map(rate_limit).transpose()?),
            #[cfg(feature = "cache")]
            cache,
            shared,
            coalesce: CoalesceHandle::default(),
            load_shed: config.load_shed.as_ref().map(|shed| {
                let layer = LoadShedLayer::predicting(shed.max_wait).timeout(config.timeout);
                let layer = if config.queue.is_some() { layer.by_priority().by_share() } else { layer };
                // Else it is learned, from the number of processors on.
                match config.concurrency {
                    Some(limit) => layer.parallelism(limit.get()),
                    None => layer,
                }
            }),
            breaker,
            timeout: TimeoutLayer::new(config.timeout),
            retry,
            queue: config
                .queue
                .as_ref()
                .map(|queue| PriorityQueueLayer::new(queue.capacity).max_bytes(queue.max_bytes).learn_service_times()),
            concurrency: config.concurrency.map(|limit| ConcurrencyLayer::new(limit.get())),
            batch: config.batch.as_ref().map(batch),
        };
        let tenants = Arc::new(Tenants::new(&config.tenants));
        Ok(Self { config: Arc::new(config), registry, tenants, parts })
    }

    /// The pipeline of this machine: the layers, the kernels of the registry, and the runs that their requests share.
    pub fn over(&self, local: Local) -> LocalPipeline {
        let gains = |batch: &BatchConfig| batch.on_cpu || local.has_devices();
        let batch = self.parts.batch.as_ref().filter(|_| self.config.batch.as_ref().is_some_and(gains));
        let backend = PipelineBackend::new(local.clone(), batch);
        self.stack(KernelService::with_backend(Arc::clone(&self.registry), backend), Some(local))
    }

    /// What it is set to.
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// Reads how its pipelines are.
    pub fn handle(&self) -> PipelineHandle {
        PipelineHandle::new(self)
    }
}

fn rate_limit(config: &RateLimitConfig) -> Result<Arc<TenantLimits>, InvalidPipeline> {
    let QuotaConfig { calls, period } = config.each;
    let invalid = |field: Cow<'static, str>| move |quota| InvalidPipeline::new(field, Reason::Quota(quota));
    let limit = RateLimiterLayer::try_new(calls, period).map_err(invalid("rate_limit.each".into()))?.per_tenant();
    let limit = config.tenants.iter().try_fold(limit, |limit, (tenant, own)| {
        let limited = limit.try_limit_for(tenant.as_str(), own.calls, own.period);
        limited.map_err(invalid(format!("rate_limit.tenants.{tenant}").into()))
    });
    limit.map(|layer| Arc::clone(layer.shared()))
}

/// It is fitted to its machine once that is known.
fn batch(config: &BatchConfig) -> BatchedLayer {
    let BatchConfig { max_requests, max_bytes, max_delay, capacity, on_cpu: _ } = *config;
    BatchedLayer::for_lanes(1)
        .max_requests(max_requests.get())
        .max_bytes(max_bytes)
        .max_delay(max_delay)
        .capacity(capacity.get())
}

impl<S: Kernels> Layer<S> for PipelineLayer {
    type Service = ReadyPipeline<S>;

    fn layer(&self, kernels: S) -> ReadyPipeline<S> {
        if self.config.batch.is_some() {
            tracing::warn!("`batch` has no effect on kernels that have a backend already: use `PipelineLayer::over`");
        }
        self.stack(kernels, None)
    }
}

impl PipelineLayer {
    fn stack<S: Kernels>(&self, kernels: S, devices: Option<Local>) -> ReadyPipeline<S> {
        let parts = &self.parts;
        let limited: Limited<S> = match &parts.concurrency {
            Some(concurrency) => Step::On(Apart(concurrency.layer(kernels))),
            None => Step::Off { inner: kernels, wrap: PhantomData },
        };
        let queued: Queued<S> = match &parts.queue {
            Some(queue) => Step::On(Apart(queue.layer(limited))),
            None => Step::Off { inner: limited, wrap: PhantomData },
        };
        let retried: Retried<S> = Apart(parts.retry.layer(queued));
        let timely: Timely<S> = Apart(parts.timeout.layer(retried));
        let guarded: Guarded<S> = Apart(match &parts.breaker {
            Some(breaker) => breaker.layer(timely),
            None => CircuitBreaker::off(timely),
        });
        let shed: Shed<S> = Apart(match &parts.load_shed {
            Some(load_shed) => load_shed.layer(guarded),
            None => LoadShed::off(guarded),
        });
        let coalesced: Coalesced<S> =
            Apart(CoalesceLayer::counted_by(parts.shared.clone(), &parts.coalesce).layer(shed));
        #[cfg(feature = "cache")]
        let cached: Cached<S> = Apart(parts.cache.layer(coalesced));
        #[cfg(not(feature = "cache"))]
        let cached: Cached<S> = coalesced;
        let rate_limited: RateLimited<S> = Apart(RateLimiter::new(cached, Arc::clone(&parts.rate_limit)));
        let traced = Apart(TracingLayer::new().layer(rate_limited));
        let shared = Shared { tenants: Tenants::clone(&self.tenants), layer: self.clone(), devices };
        ReadyPipeline { stack: Apart(parts.metrics.layer(traced)), shared: Arc::new(shared) }
    }
}

impl fmt::Display for PipelineLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PipelineConfig {
            timeout,
            tenants: TenantsConfig { max_priority, named, verified },
            rate_limit,
            cache,
            coalesce,
            load_shed,
            circuit_breaker,
            retry,
            queue,
            concurrency,
            batch,
        } = &*self.config;
        writeln!(f, "metrics          on")?;
        writeln!(f, "tracing          on")?;
        let others = if *verified { "a share each" } else { "one share, as no name is verified" };
        writeln!(f, "tenants          {} named, the others {others} and up to {max_priority} priority", named.len())?;
        let tenants = |across: bool| if across { "across tenants" } else { "each tenant on its own" };
        line(f, "rate limit", rate_limit.as_ref(), |f, limit| {
            let QuotaConfig { calls, period } = limit.each;
            match limit.each {
                QuotaConfig::UNLIMITED => write!(f, "none")?,
                _ => write!(f, "{calls} calls in {period:?} for each tenant")?,
            }
            write!(f, ", {} with a limit of their own", limit.tenants.len())
        })?;
        line(f, "cache", cache.as_ref(), |f, cache| {
            write!(f, "{} bytes, ", cache.max_bytes)?;
            match cache.ttl {
                Some(ttl) => write!(f, "for {ttl:?}, ")?,
                None => write!(f, "for ever, ")?,
            }
            f.write_str(tenants(cache.across_tenants))
        })?;
        line(f, "coalesce", coalesce.as_ref(), |f, coalesce| f.write_str(tenants(coalesce.across_tenants)))?;
        line(f, "load shed", load_shed.as_ref(), |f, shed| {
            write!(f, "expected wait over {:?} or past the deadline", shed.max_wait)
        })?;
        line(f, "circuit breaker", circuit_breaker.as_ref(), |f, breaker| {
            let rate = breaker.failure_rate;
            write!(
                f,
                "per kernel and tenant, after {} failures in a row or {rate} of all",
                breaker.consecutive_failures
            )?;
            write!(f, "; for all once {} tenants agree", breaker.agreeing_tenants)
        })?;
        writeln!(f, "timeout          {timeout:?}")?;
        line(f, "retry", retry.as_ref(), |f, retry| write!(f, "{} attempts of pure kernels", retry.attempts))?;
        line(f, "priority queue", queue.as_ref(), |f, queue| {
            write!(f, "{} calls, {} bytes", queue.capacity, queue.max_bytes)
        })?;
        line(f, "concurrency", concurrency.as_ref(), |f, limit| write!(f, "{limit} calls at a time"))?;
        line(f, "batch", batch.as_ref(), |f, batch| {
            write!(f, "{} calls of a kernel or {} bytes a run", batch.max_requests, batch.max_bytes)?;
            if !batch.max_delay.is_zero() {
                write!(f, " that waits for {:?}", batch.max_delay)?;
            }
            f.write_str(if batch.on_cpu { ", on the CPU too" } else { ", on CUDA devices" })
        })?;
        write!(f, "kernels")
    }
}

fn line<T>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    config: Option<&T>,
    write: impl FnOnce(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    write!(f, "{name:<17}")?;
    match config {
        Some(config) => write(f, config)?,
        None => f.write_str("off")?,
    }
    writeln!(f)
}

impl fmt::Debug for PipelineLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineLayer").field("config", &self.config).finish_non_exhaustive()
    }
}
