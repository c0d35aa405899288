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

/// A metric: its name, its description, and its value.
type Metric = (&'static str, &'static str, fn(&RequestTotals, &ExecutionTotals) -> u64);

const METRICS: [Metric; 10] = [
    ("nv_inference_request_success", "Number of successful inference requests", |totals, _| totals.success.count),
    ("nv_inference_request_failure", "Number of failed inference requests", |totals, _| totals.failure.count),
    ("nv_inference_count", "Number of inferences performed, without those from a cache", |totals, _| {
        totals.inferences()
    }),
    ("nv_inference_exec_count", "Number of executions, which several inferences can share", |totals, _| {
        totals.executions()
    }),
    ("nv_inference_request_duration_us", "Cumulative duration of requests in microseconds", |totals, _| {
        micros(totals.success.sum)
    }),
    ("nv_inference_queue_duration_us", "Cumulative queue time of requests in microseconds", |totals, _| {
        micros(totals.queue.sum)
    }),
    ("nv_inference_compute_input_duration_us", "Cumulative time to prepare inputs in microseconds", |_, all| {
        micros(all.input.sum)
    }),
    ("nv_inference_compute_infer_duration_us", "Cumulative time of executions in microseconds", |_, all| {
        micros(all.compute.sum)
    }),
    ("nv_inference_compute_output_duration_us", "Cumulative time to extract outputs in microseconds", |_, all| {
        micros(all.output.sum)
    }),
    ("nv_inference_pending_request_count", "Requests that have not been answered", |totals, _| totals.pending),
];

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Collector for Inference {
    /// The type is unknown, as a counter would have `_total` in its name.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let all = |model: Model| {
            let totals = model.kernel().request_statistics().totals();
            let is_used = totals.pending > 0 || totals.last.is_some();
            is_used.then(|| (model, totals.all_executions(), totals))
        };
        let used: Vec<_> = Model::all_named(&self.0).filter_map(all).collect();
        for (name, help, value) in METRICS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for (model, executions, totals) in &used {
                let labels = [("model", model.name()), ("version", model.version())];
                family.encode_family(&labels)?.encode_gauge(&value(totals, executions))?;
            }
        }
        Ok(())
    }
}
