//! Writes the figures in the form that `prometheus-client` asks for.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::handle::State;
use super::histogram::Snapshot;
use super::series::{BackendSnapshot, OperationSnapshot};

#[derive(Debug)]
pub(super) struct Encoder {
    state: Arc<State>,
}

/// All operations, read once so that a page agrees with itself.
struct Page<'a> {
    operations: Vec<(&'a str, OperationSnapshot, u64)>,
}

impl Encoder {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn read(&self) -> Page<'_> {
        Page { operations: self.state.iter().map(|(name, operation, n)| (name, operation.read(), n)).collect() }
    }
}

impl Page<'_> {
    fn backends(&self) -> impl Iterator<Item = (&str, &BackendSnapshot)> {
        self.operations.iter().flat_map(|(name, operation, _)| operation.backends.iter().map(move |of| (*name, of)))
    }

    fn outcomes(&self) -> impl Iterator<Item = (Vec<Label<'_>>, &Snapshot)> {
        self.backends().flat_map(|(operation, backend)| {
            backend.outcomes().map(move |(outcome, durations)| {
                let mut labels = labels(operation, backend);
                labels.push(("outcome", outcome));
                (labels, durations)
            })
        })
    }

    /// A histogram for each backend of each operation.
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

/// Those of an operation on a backend. What the response does not say has no label: services without kernels have no
/// backends, and those that have some are refused before one is chosen.
fn labels<'a>(operation: &'a str, backend: &BackendSnapshot) -> Vec<Label<'a>> {
    let mut labels = vec![("operation", operation)];
    labels.extend(backend.name.map(|name| ("backend", name)));
    labels
}

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let page = self.read();

        if page.outcomes().next().is_some() {
            let mut family = encoder.encode_descriptor("requests", "Calls that ended", None, MetricType::Counter)?;
            for (labels, durations) in page.outcomes() {
                let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                family.encode_family(&labels)?.encode_counter(&durations.count, exemplar)?;
            }
        }

        let duration = ("request_duration", "Time from the call to the answer", Some(Unit::Seconds));
        histograms(&mut encoder, duration, page.outcomes())?;

        let help = "Calls that have not ended";
        let mut family = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (name, _, in_flight) in &page.operations {
            family.encode_family(&[("operation", *name)])?.encode_gauge(in_flight)?;
        }

        let payload = ("request_payload", "Size of the request's payload", Some(Unit::Bytes));
        let payloads = page.operations.iter();
        let payloads = payloads.map(|(name, operation, _)| (vec![("operation", *name)], &operation.payload));
        histograms(&mut encoder, payload, payloads)?;

        let queue = ("queue_duration", "Time from the call to the start of the work", Some(Unit::Seconds));
        page.by_backend(&mut encoder, queue, |backend| &backend.queue)?;
        let batch = ("batch_size", "Requests that shared a launch", None);
        page.by_backend(&mut encoder, batch, |backend| &backend.batch)?;
        let ratio = ("duration_estimate", "Time that the work took, over its estimate", Some(Unit::Ratios));
        page.by_backend(&mut encoder, ratio, |backend| &backend.ratio)?;

        let help = "Time that the device spent on a call, by its own clock; of a sample of the calls";
        let phases = page.backends().flat_map(|(operation, backend)| {
            backend.phases().map(move |(phase, times)| {
                let mut labels = labels(operation, backend);
                labels.push(("phase", phase));
                (labels, times)
            })
        });
        histograms(&mut encoder, ("device_duration", help, Some(Unit::Seconds)), phases)?;
        let help = "Time that a kernel's bytes and operations take at the device's peak, over the time that it took";
        page.by_backend(&mut encoder, ("device_roofline", help, Some(Unit::Ratios)), |backend| &backend.roofline)
    }
}

/// Histograms that have seen nothing are left out, as most operations fill some of theirs only. Where all are, so is what
/// describes them: a page around a service without devices says nothing of devices.
fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    all: impl Iterator<Item = (Vec<Label<'a>>, &'a Snapshot)>,
) -> Result<(), Error> {
    let mut seen = all.filter(|(_, read)| read.count > 0).peekable();
    if seen.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
    for (labels, read) in seen {
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None)?;
    }
    Ok(())
}
