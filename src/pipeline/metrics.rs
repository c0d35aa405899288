//! The metrics of the pipeline's layers.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::handle::PipelineHandle;
use crate::middleware::circuit_breaker::{CircuitSnapshot, CircuitState};
use crate::request::Priority;

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

/// Writes metrics without labels, or with the label `priority` or `circuit`.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter(&value, NO_EXEMPLAR)
    }

    fn gauge_by_priority(&mut self, name: &str, help: &str, value: impl Fn(Priority) -> u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for priority in PRIORITIES {
            family.encode_family(&[("priority", priority.as_str())])?.encode_gauge(&value(priority))?;
        }
        Ok(())
    }

    fn counter_by_priority(&mut self, name: &str, help: &str, value: impl Fn(Priority) -> u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for priority in PRIORITIES {
            let labels = [("priority", priority.as_str())];
            family.encode_family(&labels)?.encode_counter(&value(priority), NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn circuits(&mut self, circuits: &[CircuitSnapshot]) -> fmt::Result {
        let help = "1 for the current state of the circuit, 0 for the others";
        let mut family = self.0.encode_descriptor("circuit_state", help, None, MetricType::Gauge)?;
        for circuit in circuits {
            for state in [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen] {
                let labels = [("circuit", circuit.circuit.as_str()), ("state", state.as_str())];
                family.encode_family(&labels)?.encode_gauge(&i64::from(state == circuit.state))?;
            }
        }
        let help = "Tenants whose own circuit is open";
        let mut family = self.0.encode_descriptor("circuit_tenants_open", help, None, MetricType::Gauge)?;
        for circuit in circuits {
            family.encode_family(&[("circuit", &*circuit.circuit)])?.encode_gauge(&circuit.tenants_open)?;
        }
        self.counter_by_circuit("circuit_opened", "Times that the circuit has opened", circuits, |it| it.opened)?;
        let help = "Times that the circuit of a single tenant has opened";
        self.counter_by_circuit("circuit_tenants_opened", help, circuits, |it| it.tenants_opened)?;
        self.counter_by_circuit("circuit_rejected", "Calls that the circuit has rejected", circuits, |it| it.rejected)
    }

    fn counter_by_circuit(
        &mut self,
        name: &str,
        help: &str,
        circuits: &[CircuitSnapshot],
        value: impl Fn(&CircuitSnapshot) -> u64,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for circuit in circuits {
            let labels = [("circuit", circuit.circuit.as_str())];
            family.encode_family(&labels)?.encode_counter(&value(circuit), NO_EXEMPLAR)?;
        }
        Ok(())
    }
}

/// Encodes the metrics of all layers but those of the calls.
#[derive(Debug)]
pub(super) struct LayerMetrics(pub(super) PipelineHandle);

impl Collector for LayerMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(pipeline) = self;
        let mut e = Encoder(encoder);
        #[cfg(feature = "cache")]
        if pipeline.config.cache.is_some() {
            let cache = pipeline.cache().snapshot();
            e.gauge("cache_entries", "Responses in the cache", cache.entries as u64)?;
            e.gauge("cache_bytes", "Memory used by the cache", cache.bytes)?;
            e.gauge("cache_max_bytes", "Memory that the cache may use", cache.max_bytes)?;
            e.counter("cache_hits", "Calls whose response was in the cache", cache.hits)?;
            e.counter("cache_misses", "Cacheable calls that were not in the cache", cache.misses)?;
        }
        if pipeline.config.coalesce.is_some() {
            let coalesce = pipeline.coalesce().snapshot();
            e.gauge("coalesce_runs_in_flight", "Executions that equal calls can join", coalesce.in_flight as u64)?;
            e.gauge("coalesce_waiting", "Calls that wait for the execution of another call", coalesce.waiting as u64)?;
            e.counter("coalesce_led", "Executions that equal calls could join", coalesce.led)?;
            e.counter("coalesce_joined", "Calls that joined the execution of another call", coalesce.joined)?;
        }
        if let Some(shed) = pipeline.load_shed().map(|layer| layer.snapshot()) {
            e.gauge("load_shed_in_flight", "Admitted calls that have not ended", shed.in_flight as u64)?;
            let help = "Estimated number of calls that run at a time";
            e.gauge("load_shed_parallelism", help, shed.parallelism as u64)?;
            let help = "Expected wait of the next call";
            e.seconds("load_shed_predicted_wait", help, shed.predicted_wait.as_secs_f64())?;
            let help = "Calls rejected because of their expected wait";
            e.counter_by_priority("load_shed_rejected", help, |priority| shed.rejected_by_priority[priority as usize])?;
        }
        if let Some(retries) = pipeline.retries() {
            e.gauge("retries_waiting", "Calls that wait before their next attempt", retries.waiting)?;
            e.counter("retries", "Attempts after the first of a call", retries.retries)?;
            e.counter(
                "retries_budget_exhausted",
                "Calls not retried because the retry budget was used up",
                retries.budget_exhausted,
            )?;
            let help = "Calls not retried because the next attempt would have missed the deadline";
            e.counter("retries_deadline_exceeded", help, retries.deadline_exceeded)?;
        }
        if let Some(queue) = pipeline.queue() {
            let help = "Calls in the queue";
            e.gauge_by_priority("pipeline_queue_waiting", help, |priority| {
                queue.waiting_by_priority[priority as usize] as u64
            })?;
            e.gauge("pipeline_queue_waiting_bytes", "Payload bytes of the calls in the queue", queue.waiting_bytes)?;
            e.counter("pipeline_queue_served", "Calls that were passed from the queue to the kernels", queue.served)?;
            e.counter("pipeline_queue_rejected", "Calls rejected because the queue was full", queue.rejected)?;
            e.counter("pipeline_queue_displaced", "Calls displaced from the full queue by others", queue.displaced)?;
            e.counter("pipeline_queue_expired", "Calls whose deadline passed in the queue", queue.expired)?;
        }
        if let Some(queue) = &pipeline.config.queue {
            e.gauge("pipeline_queue_capacity", "Calls that the queue can hold", queue.capacity as u64)?;
        }
        if let Some(concurrency) = pipeline.concurrency().map(|layer| layer.snapshot()) {
            e.gauge("concurrency_limit", "Maximum number of calls that run at a time", concurrency.limit as u64)?;
            e.gauge("concurrency_in_flight", "Calls that run", concurrency.in_flight as u64)?;
            e.gauge("concurrency_waiting", "Calls that wait for a permit", concurrency.waiting as u64)?;
        }
        if let (Some(config), Some(batch)) = (&pipeline.config.batch, pipeline.batch()) {
            e.gauge("batch_waiting", "Requests that wait for a batch", batch.waiting as u64)?;
            e.gauge(
                "batch_capacity",
                "Maximum number of requests that wait for a batch",
                config.capacity.get() as u64,
            )?;
            e.counter("batch_runs", "Batches that were run", batch.batches)?;
            e.counter("batch_requests", "Requests in batches that were run", batch.requests)?;
            e.counter("batch_expired", "Requests whose deadline passed before their batch ran", batch.expired)?;
            e.counter("batch_cancelled", "Requests cancelled before their batch ran", batch.cancelled)?;
        }
        e.circuits(&pipeline.circuits())
    }
}
