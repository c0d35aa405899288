//! What of the log is on the page of metrics.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::repeats::Repeats;
use super::writer::Queue;

pub(super) fn register(registry: &mut Registry, queue: Queue, repeats: Arc<Repeats>) {
    registry.sub_registry_with_prefix("kernel").register_collector(Box::new(OfLog { queue, repeats }));
}

#[derive(Debug)]
struct OfLog {
    queue: Queue,
    repeats: Arc<Repeats>,
}

impl Collector for OfLog {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self { queue, repeats } = self;
        let help = "Log lines that were not written: repeated events that were summed up, lines that found the queue \
                    full because their reader is slow, and lines whose write failed";
        let mut family = encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        let reasons = [
            ("repeated", repeats.repeated()),
            ("slow_reader", queue.slow_reader()),
            ("write_error", queue.write_error()),
        ];
        for (reason, count) in reasons {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            family.encode_family(&[("reason", reason)])?.encode_counter(&count, exemplar)?;
        }
        let help = "Log lines that wait to be written";
        let unit = Some(&Unit::Bytes);
        encoder.encode_descriptor("log_queue", help, unit, MetricType::Gauge)?.encode_gauge(&(queue.bytes() as u64))
    }
}
