use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use super::backend::PipelineBackend;
use super::config::{
    BatchConfig, BreakerConfig, InvalidPipeline, LoadShedConfig, PipelineConfig, QueueConfig, QuotaConfig,
    RateLimitConfig, Reason,
};
use super::handle::PipelineHandle;
#[cfg(feature = "cache")]
use super::service::KernelStore;
use super::service::{IsIdempotent, KernelHandler, LocalPipeline, Pipeline, Shared, TenantLimits};
use super::tenants::Tenants;
use crate::backends::{BatchedLayer, Local};
#[cfg(feature = "cache")]
use crate::layers::CacheLayer;
use crate::layers::{
    CircuitBreakerLayer, CoalesceLayer, ConcurrencyLayer, LoadShedLayer, MetricsLayer, OptionalLayer,
    PriorityQueueLayer, RateLimiterLayer, RetryLayer, TimeoutLayer, TracingLayer,
};
use crate::middleware::circuit_breaker::{CircuitBreaker, CircuitBreakerConfig, PerOperation};
use crate::middleware::coalesce::CoalesceHandle;
use crate::middleware::load_shed::{LoadShed, Predicted};
use crate::middleware::rate_limit::RateLimiter;
use crate::service::{KernelCacheKey, KernelRegistry, KernelService, RegisteredKernel};

/// Stacks the layers of a [`PipelineConfig`] around a kernel service. See the [module](super).
///
/// [`over`](Self::over) puts them over the backends of this machine, with batching. As a [`Layer`] it goes around a
/// kernel service that has a backend; the setting `batch` then has no effect.
///
/// Clones, and all pipelines that they make, share limits, metrics, circuits and the cache; each pipeline has a queue
/// and batches of its own. `Display` prints the layers in their order, one per line.
#[derive(Clone)]
pub struct PipelineLayer {
    pub(super) config: Arc<PipelineConfig>,
    pub(super) registry: Arc<KernelRegistry>,
    /// Shared by all pipelines, so that a tenant has the same key in each.
    tenants: Arc<Tenants>,
    pub(super) layers: Layers,
}

/// The layers, in the order of the table in the module's documentation.
#[derive(Clone)]
pub(super) struct Layers {
    pub(super) metrics: MetricsLayer,
    rate_limit: Arc<Option<Arc<TenantLimits>>>,
    #[cfg(feature = "cache")]
    pub(super) cache: CacheLayer<KernelCacheKey, KernelStore>,
    /// The keys by which calls are coalesced.
    coalesced: KernelCacheKey,
    pub(super) coalesce: CoalesceHandle,
    pub(super) load_shed: Option<LoadShedLayer<Predicted>>,
    pub(super) breaker: Option<CircuitBreakerLayer<PerOperation>>,
    timeout: TimeoutLayer,
    /// With one attempt if retries are off.
    pub(super) retry: RetryLayer<IsIdempotent>,
    pub(super) queue: Option<PriorityQueueLayer>,
    pub(super) concurrency: Option<ConcurrencyLayer>,
    pub(super) batch: Option<BatchedLayer>,
}

impl PipelineLayer {
    /// Builds the layers that `config` turns on, for the kernels of `registry`.
    ///
    /// # Errors
    /// [`InvalidPipeline`] names the field whose value is invalid.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: PipelineConfig) -> Result<Self, InvalidPipeline> {
        let registry = registry.into();
        let layers = Layers::new(&registry, &config)?;
        let tenants = Arc::new(Tenants::new(&config.tenants));
        Ok(Self { config: Arc::new(config), registry, tenants, layers })
    }

    /// Returns a service of the registry's kernels on `local`, with these layers.
    pub fn over(&self, local: Local) -> LocalPipeline {
        local.load_kernels(&self.registry);
        let is_used = |batch: &BatchConfig| batch.on_cpu || local.has_devices();
        let batch = self.layers.batch.as_ref().filter(|_| self.config.batch.as_ref().is_some_and(is_used));
        let backend = PipelineBackend::new(local.clone(), batch);
        self.stack(KernelService::with_backend(Arc::clone(&self.registry), backend), Some(local))
    }

    /// Returns the configuration.
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// Returns a handle that reads the state of this layer's pipelines.
    pub fn handle(&self) -> PipelineHandle {
        PipelineHandle::new(self)
    }

    fn stack<S: KernelHandler>(&self, kernels: S, devices: Option<Local>) -> Pipeline<S> {
        let layers = &self.layers;
        let service = OptionalLayer::new(layers.concurrency.clone()).layer(kernels);
        let service = OptionalLayer::new(layers.queue.clone()).layer(service);
        let service = layers.retry.layer(service);
        let service = layers.timeout.layer(service);
        let service = match &layers.breaker {
            Some(breaker) => breaker.layer(service),
            None => CircuitBreaker::disabled(service),
        };
        let service = match &layers.load_shed {
            Some(load_shed) => load_shed.layer(service),
            None => LoadShed::off(service),
        };
        let service = CoalesceLayer::counted_by(layers.coalesced.clone(), &layers.coalesce).layer(service);
        #[cfg(feature = "cache")]
        let service = layers.cache.layer(service);
        let service = RateLimiter::new(service, Arc::clone(&layers.rate_limit));
        let stack = layers.metrics.layer(TracingLayer::new().layer(service));
        let shared = Shared { tenants: Tenants::clone(&self.tenants), layer: self.clone(), devices };
        Pipeline { stack, shared: Arc::new(shared) }
    }
}

impl<S: KernelHandler> Layer<S> for PipelineLayer {
    type Service = Pipeline<S>;

    fn layer(&self, kernels: S) -> Pipeline<S> {
        if self.config.batch.is_some() {
            tracing::warn!(
                "the setting `batch` has no effect on a service that has a backend: use `PipelineLayer::over`"
            );
        }
        self.stack(kernels, None)
    }
}

impl fmt::Debug for PipelineLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineLayer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Layers {
    fn new(registry: &Arc<KernelRegistry>, config: &PipelineConfig) -> Result<Self, InvalidPipeline> {
        if cfg!(not(feature = "cache")) && config.cache.is_some() {
            let reason = "this program was built without the feature `cache`";
            return Err(InvalidPipeline::new("cache", Reason::Text(reason)));
        }
        let attempts = config.retry.as_ref().map_or(1, |retry| retry.attempts);
        if attempts == 0 {
            return Err(InvalidPipeline::new("retry.attempts", Reason::Text("must be at least 1")));
        }
        let key = |share_across_tenants: bool| {
            let key = KernelCacheKey::new(Arc::clone(registry));
            if share_across_tenants { key.share_across_tenants() } else { key }
        };
        let is_idempotent: IsIdempotent = {
            let registry = Arc::clone(registry);
            Box::new(move |request| registry.is_pure(&request.kernel_id))
        };
        Ok(Self {
            metrics: metrics(&registry.list()),
            rate_limit: Arc::new(config.rate_limit.as_ref().map(rate_limit).transpose()?),
            #[cfg(feature = "cache")]
            cache: match &config.cache {
                None => CacheLayer::new(0, KernelCacheKey::none()),
                Some(cache) => {
                    let layer = CacheLayer::new(cache.max_bytes, key(cache.share_across_tenants));
                    cache.ttl.into_iter().fold(layer, CacheLayer::ttl)
                }
            },
            coalesced: config
                .coalesce
                .as_ref()
                .map_or(KernelCacheKey::none(), |coalesce| key(coalesce.share_across_tenants)),
            coalesce: CoalesceHandle::default(),
            load_shed: config.load_shed.as_ref().map(|shed| load_shed(shed, config)),
            breaker: config.circuit_breaker.as_ref().map(circuit_breaker).transpose()?,
            timeout: TimeoutLayer::new(config.timeout),
            retry: RetryLayer::new(is_idempotent).max_attempts(attempts),
            queue: config.queue.as_ref().map(queue),
            concurrency: config.concurrency.map(|limit| ConcurrencyLayer::new(limit.get())),
            batch: config.batch.as_ref().map(batch),
        })
    }
}

fn metrics(kernels: &[RegisteredKernel]) -> MetricsLayer {
    const MIN_OPERATIONS: usize = 512;
    const MAX_OPERATIONS: usize = 1024;
    // If there are more kernels than time series, the kernels that are called first get them, not the first by id.
    let listed = if kernels.len() <= MAX_OPERATIONS { kernels } else { &[] };
    MetricsLayer::new()
        .max_operations(kernels.len().clamp(MIN_OPERATIONS, MAX_OPERATIONS))
        .operations(listed.iter().map(|kernel| &kernel.info().id))
}

fn rate_limit(config: &RateLimitConfig) -> Result<Arc<TenantLimits>, InvalidPipeline> {
    let QuotaConfig { burst, period } = config.default;
    let invalid = |field: Cow<'static, str>| move |quota| InvalidPipeline::new(field, Reason::Quota(quota));
    let limit = RateLimiterLayer::try_new(burst, period).map_err(invalid("rate_limit.default".into()))?.per_tenant();
    let limit = config.tenants.iter().try_fold(limit, |limit, (tenant, quota)| {
        let limited = limit.try_limit_for(tenant.as_str(), quota.burst, quota.period);
        limited.map_err(invalid(format!("rate_limit.tenants.{tenant}").into()))
    });
    limit.map(|layer| Arc::clone(layer.limit()))
}

fn queue(config: &QueueConfig) -> PriorityQueueLayer {
    PriorityQueueLayer::new(config.capacity).max_bytes(config.max_bytes).learn_service_times()
}

fn load_shed(config: &LoadShedConfig, pipeline: &PipelineConfig) -> LoadShedLayer<Predicted> {
    let layer = LoadShedLayer::predicting(config.max_wait).timeout(pipeline.timeout);
    let layer = if pipeline.queue.is_some() { layer.by_priority().by_share() } else { layer };
    // Without a limit the layer learns the parallelism, starting from the number of processors.
    match pipeline.concurrency {
        Some(limit) => layer.parallelism(limit.get()),
        None => layer,
    }
}

fn circuit_breaker(config: &BreakerConfig) -> Result<CircuitBreakerLayer<PerOperation>, InvalidPipeline> {
    let rate = config.failure_rate;
    if !(rate > 0.0 && rate <= 1.0) {
        let reason = Reason::Text("must be above 0 and at most 1");
        return Err(InvalidPipeline::new("circuit_breaker.failure_rate", reason));
    }
    let config = CircuitBreakerConfig {
        consecutive_failures: Some(config.consecutive_failures),
        failure_rate: Some(rate),
        min_open_tenants: Some(config.agreeing_tenants),
        ..CircuitBreakerConfig::default()
    };
    Ok(CircuitBreakerLayer::with_config(config).per_operation())
}

/// The number of workers is set by [`BatchedLayer::fitted`] once the backend is known.
fn batch(config: &BatchConfig) -> BatchedLayer {
    let BatchConfig { max_requests, max_bytes, max_delay, capacity, on_cpu: _ } = *config;
    BatchedLayer::for_workers(1)
        .max_requests(max_requests.get())
        .max_bytes(max_bytes)
        .max_delay(max_delay)
        .capacity(capacity.get())
}
