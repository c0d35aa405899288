use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::config::PipelineConfig;
use super::layer::{Layers, PipelineLayer};
use super::metrics::LayerMetrics;
#[cfg(feature = "cache")]
use super::service::KernelStore;
#[cfg(feature = "cache")]
use crate::layers::CacheLayer;
use crate::layers::{ConcurrencyLayer, LoadShedLayer};
use crate::middleware::batch::BatchSnapshot;
use crate::middleware::circuit_breaker::CircuitSnapshot;
use crate::middleware::coalesce::CoalesceHandle;
use crate::middleware::load_shed::Predicted;
use crate::middleware::metrics::{MetricsHandle, render};
use crate::middleware::priority_queue::PriorityQueueSnapshot;
use crate::middleware::retry::RetrySnapshot;
#[cfg(feature = "cache")]
use crate::service::KernelCacheKey;

/// Reads the state of the pipelines of a [`PipelineLayer`], for health pages, alerts and tests.
///
/// The methods return `None` or nothing for layers that are off.
#[derive(Clone)]
pub struct PipelineHandle {
    pub(super) layers: Layers,
    pub(super) config: Arc<PipelineConfig>,
}

impl PipelineHandle {
    pub(super) fn new(layer: &PipelineLayer) -> Self {
        Self { layers: layer.layers.clone(), config: Arc::clone(&layer.config) }
    }

    /// Returns the configuration of the layers.
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// Returns the metrics of the calls.
    pub fn metrics(&self) -> MetricsHandle {
        self.layers.metrics.handle()
    }

    /// Returns a handle that reads the coalesced calls.
    pub fn coalesce(&self) -> &CoalesceHandle {
        &self.layers.coalesce
    }

    /// Returns the cache of responses.
    #[cfg(feature = "cache")]
    pub fn cache(&self) -> &CacheLayer<KernelCacheKey, KernelStore> {
        &self.layers.cache
    }

    /// Returns the circuits of the kernels that have been called.
    pub fn circuits(&self) -> Vec<CircuitSnapshot> {
        self.layers.breaker.as_ref().map(|breaker| breaker.snapshots()).unwrap_or_default()
    }

    /// Returns the state of the priority queue.
    pub fn queue(&self) -> Option<PriorityQueueSnapshot> {
        self.layers.queue.as_ref().map(|queue| queue.snapshot())
    }

    /// Returns the layer for load shedding, which reads admitted and rejected calls and the expected wait.
    pub fn load_shed(&self) -> Option<&LoadShedLayer<Predicted>> {
        self.layers.load_shed.as_ref()
    }

    /// Returns the concurrency limit.
    pub fn concurrency(&self) -> Option<&ConcurrencyLayer> {
        self.layers.concurrency.as_ref()
    }

    /// Returns the numbers of batches and of requests that wait for one.
    pub fn batch(&self) -> Option<BatchSnapshot> {
        self.layers.batch.as_ref().map(|batch| batch.snapshot())
    }

    /// Returns the numbers of retries.
    pub fn retries(&self) -> Option<RetrySnapshot> {
        self.config.retry.is_some().then(|| self.layers.retry.snapshot())
    }

    /// Returns the metrics of the calls and of all layers as OpenMetrics text, with the prefix `kernel_`. Appended to other
    /// OpenMetrics text it makes a page for [`respond`](crate::middleware::metrics::respond).
    ///
    /// Besides [those of the calls](crate::middleware::metrics), for the layers that are on:
    ///
    /// | `kernel_`... | type | meaning |
    /// |---|---|---|
    /// | `cache_entries`, `cache_bytes`, `cache_max_bytes` | gauge | responses in the cache, their memory, and its bound |
    /// | `cache_hits_total`, `cache_misses_total` | counter | cache hits, and cacheable calls that missed |
    /// | `coalesce_runs_in_flight`, `coalesce_waiting` | gauge | executions that equal calls can join, and calls that have |
    /// | `coalesce_led_total`, `coalesce_joined_total` | counter | such executions, and calls that joined one |
    /// | `load_shed_in_flight`, `load_shed_parallelism` | gauge | admitted calls, and the estimated number of calls that run at a time |
    /// | `load_shed_predicted_wait_seconds` | gauge | expected wait of the next call |
    /// | `load_shed_rejected_total` | counter, by `priority` | calls rejected because of their expected wait |
    /// | `circuit_state` | gauge, by `circuit` and `state` | 1 for the current state of the circuit, 0 for the others |
    /// | `circuit_tenants_open` | gauge, by `circuit` | tenants whose own circuit is open |
    /// | `circuit_opened_total`, `circuit_tenants_opened_total` | counter, by `circuit` | times that the circuit, or that of a single tenant, has opened |
    /// | `circuit_rejected_total` | counter, by `circuit` | calls that the circuit has rejected |
    /// | `retries_waiting` | gauge | calls that wait before their next attempt |
    /// | `retries_total`, `retries_budget_exhausted_total`, `retries_deadline_exceeded_total` | counter | retries, and calls that were not retried because the budget or the time was used up |
    /// | `pipeline_queue_waiting` | gauge, by `priority` | calls in the queue |
    /// | `pipeline_queue_capacity`, `pipeline_queue_waiting_bytes` | gauge | calls that the queue can hold, and payload bytes in it |
    /// | `pipeline_queue_served_total`, `_rejected_total`, `_displaced_total`, `_expired_total` | counter | calls that were passed to the kernels, rejected, displaced by others, or whose deadline passed |
    /// | `concurrency_limit`, `concurrency_in_flight`, `concurrency_waiting` | gauge | maximum number of calls that run, calls that run, and calls that wait for a permit |
    /// | `batch_waiting`, `batch_capacity` | gauge | requests that wait for a batch, and the maximum |
    /// | `batch_runs_total`, `batch_requests_total` | counter | batches, and the requests in them |
    /// | `batch_expired_total`, `batch_cancelled_total` | counter | requests whose deadline passed, or that were cancelled, before their batch ran |
    ///
    /// The number of requests in a batch is the histogram `batch_size` of the calls. Rejections by the rate limit and
    /// timeouts are outcomes of calls and have no other metrics.
    pub fn render(&self) -> String {
        render(|registry| {
            self.metrics().register(registry);
            self.register_layers(registry.sub_registry_with_prefix("kernel"));
        })
    }

    /// Adds all metrics but those of the calls.
    pub(crate) fn register_layers(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(LayerMetrics(self.clone())));
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle").field("config", &self.config).finish_non_exhaustive()
    }
}
