use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::layer::{Parts, PipelineLayer};
use crate::layers::circuit_breaker::CircuitStatus;
use crate::layers::coalesce::CoalesceHandle;
use crate::layers::load_shed::Predicted;
use crate::layers::metrics::MetricsHandle;
use crate::layers::priority_queue::QueueStatus;
use crate::layers::retry::RetryStats;
use crate::layers::{ConcurrencyLayer, LoadShedLayer};
use crate::service::Priority;

/// Reads how the pipelines of a [`PipelineLayer`] are: for pages, alarms and tests. Clones read the same.
#[derive(Clone)]
pub struct PipelineHandle {
    parts: Parts,
    has_cache: bool,
    has_coalesce: bool,
    has_retry: bool,
}

impl PipelineHandle {
    pub(super) fn new(layer: &PipelineLayer) -> Self {
        let config = layer.config();
        let (has_cache, has_coalesce) = (config.cache.is_some(), config.coalesce.is_some());
        Self { parts: layer.parts.clone(), has_cache, has_coalesce, has_retry: config.retry.is_some() }
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
        crate::layers::cache::Store<crate::service::KeptKernelQuestion, crate::service::KernelResponse>,
    > {
        &self.parts.cache
    }

    /// The circuits of the kernels that have been called; none where there is no breaker.
    pub fn circuits(&self) -> Vec<CircuitStatus> {
        self.parts.breaker.as_ref().map(|breaker| breaker.handle().statuses()).unwrap_or_default()
    }

    /// What waits, where there is a queue.
    pub fn queue(&self) -> Option<QueueStatus> {
        self.parts.queue.as_ref().map(|queue| queue.status())
    }

    /// What is let in and what is refused, where anything is for want of time.
    pub fn load_shed(&self) -> Option<&LoadShedLayer<Predicted>> {
        self.parts.load_shed.as_ref()
    }

    /// The limit on calls that run, where there is one.
    pub fn concurrency(&self) -> Option<&ConcurrencyLayer> {
        self.parts.concurrency.as_ref()
    }

    /// What has been tried again, where anything is.
    pub fn retries(&self) -> Option<RetryStats> {
        self.has_retry.then(|| self.parts.retry.stats())
    }

    /// Adds all that there is to a registry, [`metrics`](Self::metrics) included, under names that begin with `kernel_`.
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
        if self.has_cache {
            let cache = &self.parts.cache;
            gauge(&mut encoder, "cache_entries", "Answers that are kept", cache.entries() as u64)?;
            gauge(&mut encoder, "cache_bytes", "Memory that kept answers take", cache.bytes())?;
            gauge(&mut encoder, "cache_max_bytes", "The most memory that kept answers may take", cache.max_bytes())?;
        }
        if self.has_coalesce {
            let coalesce = &self.parts.coalesce;
            gauge(&mut encoder, "coalesce_runs_in_flight", "Runs that others may join", coalesce.in_flight() as u64)?;
            gauge(&mut encoder, "coalesce_waiting", "Calls that wait for a run of another", coalesce.waiting() as u64)?;
        }
        if let Some(concurrency) = &self.parts.concurrency {
            gauge(&mut encoder, "concurrency_limit", "Calls that may run at a time", concurrency.limit() as u64)?;
            gauge(&mut encoder, "concurrency_in_flight", "Calls that run", concurrency.in_flight() as u64)?;
        }
        if let Some(shed) = &self.parts.load_shed {
            gauge(
                &mut encoder,
                "load_shed_in_flight",
                "Calls that have been let in and have not ended",
                shed.in_flight() as u64,
            )?;
            let wait = shed.predicted_wait().as_secs_f64();
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
        if let Some(queue) = &self.parts.queue {
            let help = "Calls that wait for their turn";
            let mut family = encoder.encode_descriptor("pipeline_queue_waiting", help, None, MetricType::Gauge)?;
            for priority in [Priority::Low, Priority::Normal, Priority::High] {
                let labels = [("priority", priority.as_str())];
                family.encode_family(&labels)?.encode_gauge(&(queue.waiting(priority) as u64))?;
            }
        }
        fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            encoder.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter(&value, exemplar)
        }
        #[cfg(feature = "cache")]
        if self.has_cache {
            counter(&mut encoder, "cache_hits", "Calls answered with what was kept", self.parts.cache.hits())?;
            counter(
                &mut encoder,
                "cache_misses",
                "Calls whose answer could have been kept, and was not",
                self.parts.cache.misses(),
            )?;
        }
        if self.has_coalesce {
            let coalesce = &self.parts.coalesce;
            counter(&mut encoder, "coalesce_led", "Runs that others could join", coalesce.led())?;
            counter(
                &mut encoder,
                "coalesce_joined",
                "Times that a call has joined a run of another",
                coalesce.joined(),
            )?;
        }
        if let Some(shed) = &self.parts.load_shed {
            let help = "Calls refused because of what was ahead of them";
            let mut family = encoder.encode_descriptor("load_shed_refused", help, None, MetricType::Counter)?;
            for priority in [Priority::Low, Priority::Normal, Priority::High] {
                let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                let labels = [("priority", priority.as_str())];
                family.encode_family(&labels)?.encode_counter(&shed.shed(priority), exemplar)?;
            }
        }
        if let Some(queue) = self.queue() {
            counter(&mut encoder, "pipeline_queue_served", "Calls that have waited and had their turn", queue.served)?;
            counter(&mut encoder, "pipeline_queue_refused", "Calls for which there was no room", queue.refused)?;
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
        }
        Ok(())
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle")
            .field("cache", &self.has_cache)
            .field("coalesce", &self.parts.coalesce)
            .field("queue", &self.queue())
            .finish_non_exhaustive()
    }
}
