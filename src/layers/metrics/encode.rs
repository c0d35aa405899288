//! Writes the figures in the form that `prometheus-client` asks for.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::handle::State;
use super::histogram::{RATIO_ONE, Snapshot};
use super::series::{Backend, Operation};

const NANOS: f64 = 1e9;

#[derive(Debug)]
pub(super) struct Encoder {
    state: Arc<State>,
}

impl Encoder {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Those that something has happened to, or that were announced.
    fn operations(&self) -> impl Iterator<Item = (&Operation, u64)> {
        self.state.operations.iter()
    }

    fn backends(&self) -> impl Iterator<Item = (&str, &Backend)> {
        self.operations().flat_map(|(operation, _)| operation.backends().map(|backend| (&*operation.name, backend)))
    }

    /// A histogram for each backend of each operation, but for those whose responses say nothing.
    fn by_backend(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<Unit>),
        read: impl Fn(&Backend) -> Snapshot,
    ) -> Result<(), Error> {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
        for (operation, backend) in self.backends() {
            let labels = [("operation", operation), ("backend", backend.name)];
            histogram(&mut family, &labels, read(backend))?;
        }
        Ok(())
    }
}

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Calls that ended";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (operation, backend) in self.backends() {
            for (outcome, durations) in backend.outcomes() {
                let labels = [("operation", operation), ("backend", backend.name), ("outcome", outcome)];
                let count = durations.read(NANOS).count;
                let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                family.encode_family(&labels)?.encode_counter(&count, exemplar)?;
            }
        }

        let help = "Time from the call to the answer";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("request_duration", help, unit, MetricType::Histogram)?;
        for (operation, backend) in self.backends() {
            for (outcome, durations) in backend.outcomes() {
                let labels = [("operation", operation), ("backend", backend.name), ("outcome", outcome)];
                histogram(&mut family, &labels, durations.read(NANOS))?;
            }
        }

        let help = "Calls that have not ended";
        let mut family = encoder.encode_descriptor("requests_in_flight", help, None, MetricType::Gauge)?;
        for (operation, in_flight) in self.operations() {
            family.encode_family(&[("operation", &*operation.name)])?.encode_gauge(&in_flight)?;
        }

        let help = "Size of the request's payload";
        let unit = Some(&Unit::Bytes);
        let mut family = encoder.encode_descriptor("request_payload", help, unit, MetricType::Histogram)?;
        for (operation, _) in self.operations() {
            histogram(&mut family, &[("operation", &*operation.name)], operation.payload.read(1.0))?;
        }

        let queue = ("queue_duration", "Time from the call to the start of the work", Some(Unit::Seconds));
        self.by_backend(&mut encoder, queue, |backend| backend.queue.read(NANOS))?;
        let batch = ("batch_size", "Requests that shared a launch", None);
        self.by_backend(&mut encoder, batch, |backend| backend.batch.read(1.0))?;
        let ratio = ("duration_estimate", "Time that the work took, over its estimate", Some(Unit::Ratios));
        self.by_backend(&mut encoder, ratio, |backend| backend.ratio.read(RATIO_ONE as f64))
    }
}

/// A histogram that has seen nothing is left out: most operations fill some of theirs only.
fn histogram(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, read: Snapshot) -> Result<(), Error> {
    if read.count == 0 {
        return Ok(());
    }
    let mut metric = family.encode_family(labels)?;
    metric.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None)
}
