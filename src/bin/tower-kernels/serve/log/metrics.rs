//! Metrics of the log.

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
    registry.sub_registry_with_prefix("kernel").register_collector(Box::new(LogCollector { queue, repeats }));
}

#[derive(Debug)]
struct LogCollector {
    queue: Queue,
    repeats: Arc<Repeats>,
}

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self { queue, repeats } = self;
        let help = "Log lines that were dropped: summarized repeats, lines that did not fit into the queue of a slow \
                    reader, and lines whose write failed";
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
        let help = "Size of the log lines that wait to be written";
        let unit = Some(&Unit::Bytes);
        encoder.encode_descriptor("log_queue", help, unit, MetricType::Gauge)?.encode_gauge(&(queue.bytes() as u64))
    }
}
