//! Metrics of the listeners' connections.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use crate::hyper::Connections;

/// Names and connections of the listeners.
#[derive(Debug)]
pub(super) struct Listeners(pub(super) Vec<(&'static str, Connections)>);

/// Values of a counter by `reason`; `None` for a counter without that label.
type ByReason = &'static [(Option<&'static str>, fn(&Connections) -> u64)];

/// Names, help texts and values.
const COUNTERS: [(&str, &str, ByReason); 5] = [
    ("connections_accepted", "Accepted connections", &[(None, Connections::accepted)]),
    (
        "connections_rejected",
        "Connections over connections.max, which serve health probes only, or over connections.max_per_address, which are closed",
        &[(Some("max"), Connections::over_max), (Some("address"), Connections::over_max_per_address)],
    ),
    (
        "connections_not_accepted",
        "Failed attempts to accept a connection, mostly because of the limit on open files",
        &[(None, Connections::failed)],
    ),
    (
        "connections_closed",
        "Connections closed by the server: responses were not read, idle over HTTP/2, or maximum age reached",
        &[
            (Some("slow"), Connections::slow_connections),
            (Some("idle"), Connections::idle),
            (Some("age"), Connections::old),
        ],
    ),
    (
        "streams_reset",
        "HTTP/2 streams reset because their client did not read the response",
        &[(None, Connections::slow_streams)],
    ),
];

impl Collector for Listeners {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut family = encoder.encode_descriptor("connections", "Open connections", None, MetricType::Gauge)?;
        for (listener, connections) in &self.0 {
            family.encode_family(&[("listener", *listener)])?.encode_gauge(&(connections.open() as u64))?;
        }
        for (name, help, by_reason) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (listener, connections) in &self.0 {
                for (reason, value) in by_reason {
                    let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                    let mut labels = vec![("listener", *listener)];
                    labels.extend(reason.map(|reason| ("reason", reason)));
                    family.encode_family(&labels)?.encode_counter(&value(connections), exemplar)?;
                }
            }
        }
        Ok(())
    }
}
