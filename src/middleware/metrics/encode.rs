//! Encodes the metrics for `prometheus-client`.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::handle::State;
use super::histogram::Snapshot;
use super::series::{BackendSnapshot, OperationSnapshot};

#[derive(Debug)]
pub(super) struct Encoder(pub(super) Arc<State>);

/// All operations with their calls in flight, read once so that the metrics of a page are consistent.
struct Page<'a> {
    operations: Vec<(&'a str, OperationSnapshot, u64)>,
}

impl Page<'_> {
    fn backends(&self) -> impl Iterator<Item = (&str, &BackendSnapshot)> {
        self.operations.iter().flat_map(|(name, operation, _)| operation.backends.iter().map(move |of| (*name, of)))
    }

    /// The histograms of each backend of each operation, with a further label.
    fn labelled<'a, I>(
        &'a self,
        label: &'static str,
        histograms: impl Fn(&'a BackendSnapshot) -> I,
    ) -> impl Iterator<Item = (Vec<Label<'a>>, &'a Snapshot)>
    where
        I: Iterator<Item = (&'static str, &'a Snapshot)>,
    {
        self.backends().flat_map(move |(operation, backend)| {
            histograms(backend).map(move |(value, histogram)| {
                let mut labels = labels(operation, backend);
                labels.push((label, value));
                (labels, histogram)
            })
        })
    }

    /// Writes one histogram of each backend of each operation.
    fn by_backend(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        family: (&str, &str, Option<Unit>),
        which: impl Fn(&BackendSnapshot) -> &Snapshot,
    ) -> Result<(), Error> {
        let by_backend = self.backends().map(|(operation, backend)| (labels(operation, backend), which(backend)));
        histograms(encoder, family, by_backend)
    }
}

type Label<'a> = (&'static str, &'a str);

/// The labels of an operation on a backend. There is no label `backend` for calls whose response names none: those of
/// services without kernels, and calls that were rejected before a backend was chosen.
fn labels<'a>(operation: &'a str, backend: &BackendSnapshot) -> Vec<Label<'a>> {
    let mut labels = vec![("operation", operation)];
    labels.extend(backend.name.map(|name| ("backend", name)));
    labels
}

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let state = &self.0;
        let page = Page { operations: state.iter().map(|(name, operation, n)| (name, operation.read(), n)).collect() };
        let outcomes = || page.labelled("outcome", BackendSnapshot::outcomes);

        if outcomes().next().is_some() {
            let mut family =
                encoder.encode_descriptor("requests", "Calls that have ended", None, MetricType::Counter)?;
            for (labels, durations) in outcomes() {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&durations.count, None)?;
            }
        }

        let duration = ("request_duration", "Time from the call to the response", Some(Unit::Seconds));
        histograms(&mut encoder, duration, outcomes())?;

        let help = "Calls in flight";
        let mut family = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (name, _, in_flight) in &page.operations {
            family.encode_family(&[("operation", *name)])?.encode_gauge(in_flight)?;
        }

        let payload = ("request_payload", "Payload size of requests", Some(Unit::Bytes));
        let payloads = page.operations.iter();
        let payloads = payloads.map(|(name, operation, _)| (vec![("operation", *name)], &operation.payload));
        histograms(&mut encoder, payload, payloads)?;

        let queue = ("queue_duration", "Time from the call to the start of its execution", Some(Unit::Seconds));
        page.by_backend(&mut encoder, queue, |backend| &backend.queue)?;
        let batch = ("batch_size", "Requests that were executed in one batch", None);
        page.by_backend(&mut encoder, batch, |backend| &backend.batch)?;
        let ratio = ("duration_estimate", "Execution time divided by its estimate", Some(Unit::Ratios));
        page.by_backend(&mut encoder, ratio, |backend| &backend.ratio)?;

        let help = "Device time of a call, measured by the device, for a sample of the calls";
        let phases = page.labelled("phase", BackendSnapshot::phases);
        histograms(&mut encoder, ("device_duration", help, Some(Unit::Seconds)), phases)?;
        let help =
            "Roofline time of a kernel at the device's peak bandwidth and throughput, divided by its measured time";
        page.by_backend(&mut encoder, ("device_roofline", help, Some(Unit::Ratios)), |backend| &backend.roofline)
    }
}

/// Writes a family of histograms. Empty histograms are omitted, and so is the description of a family if all are empty:
/// the page of a service without devices has no device metrics.
fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    all: impl Iterator<Item = (Vec<Label<'a>>, &'a Snapshot)>,
) -> Result<(), Error> {
    let mut filled = all.filter(|(_, histogram)| histogram.count > 0).peekable();
    if filled.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
    for (labels, histogram) in filled {
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count, &histogram.buckets, None)?;
    }
    Ok(())
}
