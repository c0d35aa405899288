//! Writes the figures in the form that `prometheus-client` asks for.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
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

    fn outcomes(&self) -> impl Iterator<Item = ([(&str, &str); 3], &Snapshot)> {
        self.backends().flat_map(|(operation, backend)| {
            backend.outcomes().map(move |(outcome, durations)| {
                ([("operation", operation), ("backend", backend.name), ("outcome", outcome)], durations)
            })
        })
    }

    /// A histogram for each backend of each operation.
    fn by_backend(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<Unit>),
        which: impl Fn(&BackendSnapshot) -> &Snapshot,
    ) -> Result<(), Error> {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (operation, backend) in self.backends() {
            histogram(&mut family, &[("operation", operation), ("backend", backend.name)], which(backend))?;
        }
        Ok(())
    }
}

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let page = self.read();

        let help = "Calls that ended";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (labels, durations) in page.outcomes() {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            family.encode_family(&labels)?.encode_counter(&durations.count, exemplar)?;
        }

        let help = "Time from the call to the answer";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("request_duration", help, unit, MetricType::Histogram)?;
        for (labels, durations) in page.outcomes() {
            histogram(&mut family, &labels, durations)?;
        }

        let help = "Calls that have not ended";
        let mut family = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (name, _, in_flight) in &page.operations {
            family.encode_family(&[("operation", *name)])?.encode_gauge(in_flight)?;
        }

        let help = "Size of the request's payload";
        let unit = Some(&Unit::Bytes);
        let mut family = encoder.encode_descriptor("request_payload", help, unit, MetricType::Histogram)?;
        for (name, operation, _) in &page.operations {
            histogram(&mut family, &[("operation", *name)], &operation.payload)?;
        }

        let queue = ("queue_duration", "Time from the call to the start of the work", Some(Unit::Seconds));
        page.by_backend(&mut encoder, queue, |backend| &backend.queue)?;
        let batch = ("batch_size", "Requests that shared a launch", None);
        page.by_backend(&mut encoder, batch, |backend| &backend.batch)?;
        let ratio = ("duration_estimate", "Time that the work took, over its estimate", Some(Unit::Ratios));
        page.by_backend(&mut encoder, ratio, |backend| &backend.ratio)?;

        // Of devices. A page without them says nothing of them.
        if page.backends().any(|(_, backend)| backend.phases().any(|(_, times)| times.count > 0)) {
            let help = "Time that the device spent on a call, by its own clock; of a sample of the calls";
            let unit = Some(&Unit::Seconds);
            let mut family = encoder.encode_descriptor("device_duration", help, unit, MetricType::Histogram)?;
            for (operation, backend) in page.backends() {
                for (phase, times) in backend.phases() {
                    histogram(
                        &mut family,
                        &[("operation", operation), ("backend", backend.name), ("phase", phase)],
                        times,
                    )?;
                }
            }
            let help =
                "Time that a kernel's bytes and operations take at the device's peak, over the time that it took";
            let roofline = ("device_roofline", help, Some(Unit::Ratios));
            page.by_backend(&mut encoder, roofline, |backend| &backend.roofline)?;
        }
        Ok(())
    }
}

/// A histogram that has seen nothing is left out: most operations fill some of theirs only.
fn histogram(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, read: &Snapshot) -> Result<(), Error> {
    if read.count == 0 {
        return Ok(());
    }
    let mut metric = family.encode_family(labels)?;
    metric.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None)
}
