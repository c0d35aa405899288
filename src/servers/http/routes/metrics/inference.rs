//! The metrics of model servers, under the names that existing dashboards and autoscalers have for them.

use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::servers::inference::Model;
use crate::service::{ExecutionTotals, KernelRegistry, RequestTotals};

/// Requests over the Open Inference Protocol, by model.
#[derive(Debug)]
pub(super) struct Inference(pub(super) Arc<KernelRegistry>);

/// What the metrics of a model are read from.
struct Sums {
    model: Model,
    totals: RequestTotals,
    executions: ExecutionTotals,
    /// Requests that have not been answered.
    pending: u64,
}

/// A metric: its name, its description, and its value.
type Metric = (&'static str, &'static str, fn(&Sums) -> u64);

const METRICS: [Metric; 10] = [
    ("nv_inference_request_success", "Number of successful inference requests", |sums| sums.totals.success.count),
    ("nv_inference_request_failure", "Number of failed inference requests", |sums| sums.totals.failure.count),
    ("nv_inference_count", "Number of inferences performed, without those from a cache", |sums| {
        sums.totals.inferences()
    }),
    ("nv_inference_exec_count", "Number of executions, which several inferences can share", |sums| {
        sums.totals.executions()
    }),
    ("nv_inference_request_duration_us", "Cumulative duration of requests in microseconds", |sums| {
        micros(sums.totals.success.sum)
    }),
    ("nv_inference_queue_duration_us", "Cumulative queue time of requests in microseconds", |sums| {
        micros(sums.totals.queue.sum)
    }),
    ("nv_inference_compute_input_duration_us", "Cumulative time to prepare inputs in microseconds", |sums| {
        micros(sums.executions.input.sum)
    }),
    ("nv_inference_compute_infer_duration_us", "Cumulative time of executions in microseconds", |sums| {
        micros(sums.executions.compute.sum)
    }),
    ("nv_inference_compute_output_duration_us", "Cumulative time to extract outputs in microseconds", |sums| {
        micros(sums.executions.output.sum)
    }),
    ("nv_inference_pending_request_count", "Requests that have not been answered", |sums| sums.pending),
];

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Collector for Inference {
    /// The type is unknown, as a counter would have `_total` in its name.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let all = |model: Model| {
            let statistics = model.kernel().request_statistics();
            let (totals, pending) = (statistics.totals(), statistics.pending());
            let is_used = pending > 0 || totals.last.is_some();
            is_used.then(|| Sums { executions: totals.all_executions(), model, totals, pending })
        };
        let used: Vec<_> = Model::all_named(&self.0).filter_map(all).collect();
        for (name, help, value) in METRICS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for sums in &used {
                let labels = [("model", sums.model.name()), ("version", sums.model.version())];
                family.encode_family(&labels)?.encode_gauge(&value(sums))?;
            }
        }
        Ok(())
    }
}
