use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::config::PipelineConfig;
use super::layer::{Parts, PipelineLayer};
use crate::layers::{ConcurrencyLayer, LoadShedLayer};
use crate::middleware::batch::BatchSnapshot;
use crate::middleware::circuit_breaker::CircuitStatus;
use crate::middleware::coalesce::CoalesceHandle;
use crate::middleware::load_shed::Predicted;
use crate::middleware::metrics::MetricsHandle;
use crate::middleware::priority_queue::PriorityQueueSnapshot;
use crate::middleware::retry::RetryStats;
use crate::request::Priority;

/// Reads how the pipelines of a [`PipelineLayer`] are: for pages, alarms and tests. Clones read the same.
#[derive(Clone)]
pub struct PipelineHandle {
    parts: Parts,
    config: Arc<PipelineConfig>,
}

impl PipelineHandle {
    pub(super) fn new(layer: &PipelineLayer) -> Self {
        Self { parts: layer.parts.clone(), config: Arc::clone(&layer.config) }
    }

    /// What its layers are set to.
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// What the calls were and how they ended.
    pub fn metrics(&self) -> MetricsHandle {
        self.parts.metrics.handle()
    }

    /// What is in flight and shared.
    pub fn coalesce(&self) -> &CoalesceHandle {
        &self.parts.coalesce
    }

    /// What is kept.
    #[cfg(feature = "cache")]
    pub fn cache(
        &self,
    ) -> &crate::layers::CacheLayer<
        crate::service::PureKernels,
        crate::middleware::cache::Store<crate::service::KeptKernelQuestion, crate::service::KernelResponse>,
    > {
        &self.parts.cache
    }

    /// The circuits of the kernels that have been called; none where there is no breaker.
    pub fn circuits(&self) -> Vec<CircuitStatus> {
        self.parts.breaker.as_ref().map(|breaker| breaker.handle().statuses()).unwrap_or_default()
    }

    /// What waits, where there is a queue.
    pub fn queue(&self) -> Option<PriorityQueueSnapshot> {
        self.parts.queue.as_ref().map(|queue| queue.snapshot())
    }

    /// What is let in and what is refused, where anything is for want of time.
    pub fn load_shed(&self) -> Option<&LoadShedLayer<Predicted>> {
        self.parts.load_shed.as_ref()
    }

    /// The limit on calls that run, where there is one.
    pub fn concurrency(&self) -> Option<&ConcurrencyLayer> {
        self.parts.concurrency.as_ref()
    }

    /// What shares runs, and what waits to, where requests do.
    pub fn batch(&self) -> Option<BatchSnapshot> {
        self.parts.batch.as_ref().map(|batch| batch.stats())
    }

    /// What has been tried again, where anything is.
    pub fn retries(&self) -> Option<RetryStats> {
        self.config.retry.is_some().then(|| self.parts.retry.stats())
    }

    /// Adds all that there is to a registry, [`metrics`](Self::metrics) included, under names that begin with `kernel_`.
    ///
    /// Beside [those of the calls](crate::middleware::metrics) and [of the circuits](crate::middleware::circuit_breaker), and of layers that are on
    /// alone:
    ///
    /// | `kernel_`... | type | what |
    /// |---|---|---|
    /// | `cache_entries`, `cache_bytes`, `cache_max_bytes` | gauge | what is kept, and may be |
    /// | `cache_hits_total`, `cache_misses_total` | counter | calls answered with what was kept, and those that could have been |
    /// | `coalesce_runs_in_flight`, `coalesce_waiting` | gauge | runs that others may join, and calls that have |
    /// | `coalesce_led_total`, `coalesce_joined_total` | counter | such runs, and calls that joined |
    /// | `load_shed_in_flight`, `load_shed_parallelism` | gauge | calls that were let in, and how many of them run |
    /// | `load_shed_predicted_wait_seconds` | gauge | how long the next call would wait |
    /// | `load_shed_rejected_total` | counter, by `priority` | calls refused for want of time |
    /// | `retries_waiting` | gauge | calls that wait for their next attempt |
    /// | `retries_total`, `retries_without_budget_total`, `retries_too_late_total` | counter | further attempts, and calls that had none |
    /// | `pipeline_queue_waiting` | gauge, by `priority` | calls that wait for their turn |
    /// | `pipeline_queue_capacity`, `pipeline_queue_waiting_bytes` | gauge | how many may, and what their payloads take |
    /// | `pipeline_queue_served_total`, `_rejected_total`, `_displaced_total`, `_expired_total` | counter | what became of them |
    /// | `concurrency_limit`, `concurrency_in_flight`, `concurrency_waiting` | gauge | calls that may run, do, and would |
    /// | `batch_waiting`, `batch_capacity` | gauge | requests that wait for a run to share, and how many may |
    /// | `batch_runs_total`, `batch_requests_total` | counter | such runs, and the requests in them |
    /// | `batch_expired_total`, `batch_cancelled_total` | counter | requests past their deadline, or cancelled, before their run was sent |
    ///
    /// How many requests shared the run of an answer is `batch_size`, a histogram of the calls'. Refusals of the rate limit and
    /// timeouts are outcomes of calls, and have no figures of their own.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics().register(registry);
        self.register_layers(registry.sub_registry_with_prefix("kernel"));
    }

    /// All but the metrics of the calls.
    pub(crate) fn register_layers(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
        if let Some(breaker) = &self.parts.breaker {
            breaker.handle().register(registry);
        }
    }
}

impl Collector for PipelineHandle {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
        }
        #[cfg(feature = "cache")]
        if self.config.cache.is_some() {
            let cache = &self.parts.cache;
            gauge(&mut encoder, "cache_entries", "Answers that are kept", cache.entries() as u64)?;
            gauge(&mut encoder, "cache_bytes", "Memory that kept answers take", cache.bytes())?;
            gauge(&mut encoder, "cache_max_bytes", "The most memory that kept answers may take", cache.max_bytes())?;
        }
        if self.config.coalesce.is_some() {
            let coalesce = &self.parts.coalesce;
            gauge(&mut encoder, "coalesce_runs_in_flight", "Runs that others may join", coalesce.in_flight() as u64)?;
            gauge(&mut encoder, "coalesce_waiting", "Calls that wait for a run of another", coalesce.waiting() as u64)?;
        }
        if let Some(concurrency) = self.parts.concurrency.as_ref().map(|layer| layer.snapshot()) {
            gauge(&mut encoder, "concurrency_limit", "Calls that may run at a time", concurrency.limit as u64)?;
            gauge(&mut encoder, "concurrency_in_flight", "Calls that run", concurrency.in_flight as u64)?;
            let help = "Calls that wait until others have ended";
            gauge(&mut encoder, "concurrency_waiting", help, concurrency.waiting as u64)?;
        }
        if let Some(shed) = self.parts.load_shed.as_ref().map(|layer| layer.snapshot()) {
            gauge(
                &mut encoder,
                "load_shed_in_flight",
                "Calls that have been let in and have not ended",
                shed.in_flight as u64,
            )?;
            let help = "Calls that run beside each other, as far as that is known";
            gauge(&mut encoder, "load_shed_parallelism", help, shed.parallelism as u64)?;
            let wait = shed.predicted_wait.as_secs_f64();
            encoder
                .encode_descriptor(
                    "load_shed_predicted_wait",
                    "How long the next call is expected to wait",
                    Some(&Unit::Seconds),
                    MetricType::Gauge,
                )?
                .encode_gauge(&wait)?;
        }
        if let Some(queue) = self.queue() {
            gauge(
                &mut encoder,
                "pipeline_queue_waiting_bytes",
                "Payloads of the calls that wait",
                queue.waiting_bytes,
            )?;
        }
        if let Some(queue) = &self.config.queue {
            let help = "Calls that may wait for their turn";
            gauge(&mut encoder, "pipeline_queue_capacity", help, queue.capacity as u64)?;
        }
        if let Some(batch) = self.batch() {
            gauge(&mut encoder, "batch_waiting", "Places of requests that wait for a run", batch.waiting as u64)?;
        }
        if let Some(batch) = &self.config.batch {
            let help = "Requests that may wait for a run";
            gauge(&mut encoder, "batch_capacity", help, batch.capacity.get() as u64)?;
        }
        if let Some(retries) = self.retries() {
            gauge(&mut encoder, "retries_waiting", "Calls that wait for their next attempt", retries.waiting)?;
        }
        if let Some(queue) = self.queue() {
            let help = "Calls that wait for their turn";
            let mut family = encoder.encode_descriptor("pipeline_queue_waiting", help, None, MetricType::Gauge)?;
            for priority in [Priority::Low, Priority::Normal, Priority::High] {
                let labels = [("priority", priority.as_str())];
                family.encode_family(&labels)?.encode_gauge(&(queue.waiting_by_priority[priority as usize] as u64))?;
            }
        }
        fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            encoder.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter(&value, exemplar)
        }
        #[cfg(feature = "cache")]
        if self.config.cache.is_some() {
            counter(&mut encoder, "cache_hits", "Calls answered with what was kept", self.parts.cache.hits())?;
            counter(
                &mut encoder,
                "cache_misses",
                "Calls whose answer could have been kept, and was not",
                self.parts.cache.misses(),
            )?;
        }
        if self.config.coalesce.is_some() {
            let coalesce = &self.parts.coalesce;
            counter(&mut encoder, "coalesce_led", "Runs that others could join", coalesce.led())?;
            counter(
                &mut encoder,
                "coalesce_joined",
                "Times that a call has joined a run of another",
                coalesce.joined(),
            )?;
        }
        if let Some(shed) = self.parts.load_shed.as_ref().map(|layer| layer.snapshot()) {
            let help = "Calls rejected because of their predicted wait";
            let mut family = encoder.encode_descriptor("load_shed_rejected", help, None, MetricType::Counter)?;
            for priority in [Priority::Low, Priority::Normal, Priority::High] {
                let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                let labels = [("priority", priority.as_str())];
                family
                    .encode_family(&labels)?
                    .encode_counter(&shed.rejected_by_priority[priority as usize], exemplar)?;
            }
        }
        if let Some(queue) = self.queue() {
            counter(&mut encoder, "pipeline_queue_served", "Calls that have waited and had their turn", queue.served)?;
            counter(
                &mut encoder,
                "pipeline_queue_rejected",
                "Calls rejected because the queue was full",
                queue.rejected,
            )?;
            counter(
                &mut encoder,
                "pipeline_queue_displaced",
                "Calls that gave their place to another",
                queue.displaced,
            )?;
            counter(
                &mut encoder,
                "pipeline_queue_expired",
                "Calls whose deadline passed before their turn",
                queue.expired,
            )?;
        }
        if let Some(retries) = self.retries() {
            counter(&mut encoder, "retries", "Attempts beyond the first of each call", retries.retries)?;
            counter(
                &mut encoder,
                "retries_without_budget",
                "Calls not tried again for want of budget",
                retries.without_budget,
            )?;
            let help = "Calls not tried again because the next attempt would have come after the deadline";
            counter(&mut encoder, "retries_too_late", help, retries.too_late)?;
        }
        if let Some(batch) = self.batch() {
            counter(&mut encoder, "batch_runs", "Runs that requests have waited for", batch.batches)?;
            counter(&mut encoder, "batch_requests", "Requests that were in them", batch.requests)?;
            let help = "Requests whose deadline passed before their run was sent";
            counter(&mut encoder, "batch_expired", help, batch.expired)?;
            let help = "Requests cancelled before their run was sent";
            counter(&mut encoder, "batch_cancelled", help, batch.cancelled)?;
        }
        Ok(())
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle")
            .field("cache", &self.config.cache.is_some())
            .field("coalesce", &self.parts.coalesce)
            .field("queue", &self.queue())
            .finish_non_exhaustive()
    }
}
