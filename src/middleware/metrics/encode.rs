//! Encodes the metrics for `prometheus-client`.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::handle::State;
use super::histogram::Histogram;
use super::series::Backend;

/// Encodes the metrics of a layer.
#[derive(Debug)]
pub(super) struct Encoder(pub(super) Arc<State>);

type Label<'a> = (&'static str, &'a str);

/// The labels of an operation on a backend. There is no label `backend` for calls whose response names none: those of
/// services without kernels, and calls that were rejected before a backend was chosen.
fn labels<'a>(operation: &'a str, backend: &Backend) -> Vec<Label<'a>> {
    let mut labels = vec![("operation", operation)];
    labels.extend(backend.name.map(|name| ("backend", name)));
    labels
}

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        // Read once, so that the metrics of a page are consistent.
        let operations: Vec<_> = self.0.iter().map(|(name, of)| (name, of.read(), of.in_flight())).collect();
        let backends = operations.iter().flat_map(|(name, calls, _)| calls.backends.iter().map(move |of| (*name, of)));
        let backends: Vec<_> = backends.map(|(name, backend)| (labels(name, backend), backend)).collect();

        let outcomes = backends.iter().flat_map(|(labels, backend)| {
            backend
                .outcomes()
                .map(move |(outcome, durations)| ([&labels[..], &[("outcome", outcome)]].concat(), durations))
        });
        let outcomes: Vec<_> = outcomes.collect();
        let mut family = encoder.encode_descriptor("requests", "Calls that have ended", None, MetricType::Counter)?;
        for (labels, durations) in &outcomes {
            family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&durations.count(), None)?;
        }
        let help = "Time from the call to the response";
        histograms(&mut encoder, "request_duration", help, Some(Unit::Seconds), outcomes)?;

        let help = "Calls in flight";
        let mut family = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (name, _, in_flight) in &operations {
            family.encode_family(&[("operation", *name)])?.encode_gauge(in_flight)?;
        }

        let payloads = operations.iter().map(|(name, calls, _)| (vec![("operation", *name)], &calls.payload));
        histograms(&mut encoder, "request_payload", "Payload size of requests", Some(Unit::Bytes), payloads)?;

        let help = "Time from the call to the start of its execution";
        let queue = backends.iter().map(|(labels, backend)| (labels.clone(), &backend.queue));
        histograms(&mut encoder, "queue_duration", help, Some(Unit::Seconds), queue)?;
        let batch = backends.iter().map(|(labels, backend)| (labels.clone(), &backend.batch));
        histograms(&mut encoder, "batch_size", "Requests that were executed in one batch", None, batch)?;
        let help = "Execution time divided by its estimate";
        let ratio = backends.iter().map(|(labels, backend)| (labels.clone(), &backend.ratio));
        histograms(&mut encoder, "duration_estimate", help, Some(Unit::Ratios), ratio)?;

        let help = "Device time of a call, measured by the device, for a sample of the calls";
        let phases = backends.iter().flat_map(|(labels, backend)| {
            backend.phases().map(move |(phase, times)| ([&labels[..], &[("phase", phase)]].concat(), times))
        });
        histograms(&mut encoder, "device_duration", help, Some(Unit::Seconds), phases)?;
        let help =
            "Roofline time of a kernel at the device's peak bandwidth and throughput, divided by its measured time";
        let roofline = backends.iter().map(|(labels, backend)| (labels.clone(), &backend.roofline));
        histograms(&mut encoder, "device_roofline", help, Some(Unit::Ratios), roofline)
    }
}

/// Writes a family of histograms, but for those that are empty.
fn histograms<'a, const FIRST: u32, const STEP: u32, const BUCKETS: usize, const ONE: u64>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    all: impl IntoIterator<Item = (Vec<Label<'a>>, &'a Histogram<FIRST, STEP, BUCKETS, ONE>)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
    for (labels, histogram) in all.into_iter().filter(|(_, histogram)| histogram.count() > 0) {
        let mut metric = family.encode_family(&labels)?;
        let (sum, buckets) = (histogram.exported_sum(), histogram.exported_buckets());
        metric.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
    }
    Ok(())
}
