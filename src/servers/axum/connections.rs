//! What the listeners' connections come to, for `/metrics`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use crate::hyper::Connections;

/// Each listener's name, and its connections.
#[derive(Debug)]
pub(super) struct Listeners(pub(super) Vec<(&'static str, Connections)>);

/// A counter's value for each reason; one without a reason has no such label.
type ByReason = &'static [(Option<&'static str>, fn(&Connections) -> u64)];

/// Name, help and values.
const COUNTERS: [(&str, &str, ByReason); 5] = [
    ("connections_accepted", "Connections that were accepted", &[(None, Connections::accepted)]),
    (
        "connections_rejected",
        "Connections past connections.max, let in for health probes alone, or past connections.max_per_address, closed",
        &[(Some("max"), Connections::over_max), (Some("address"), Connections::over_max_per_address)],
    ),
    (
        "connections_not_accepted",
        "Times that no connection could be accepted, for want of open files in most cases",
        &[(None, Connections::failed)],
    ),
    (
        "connections_closed",
        "Connections that the server ended: unread responses, nothing asked over HTTP/2, or the age of the connection",
        &[
            (Some("slow"), Connections::slow_connections),
            (Some("idle"), Connections::idle),
            (Some("age"), Connections::old),
        ],
    ),
    (
        "streams_reset",
        "HTTP/2 streams that were reset because their client did not read them",
        &[(None, Connections::slow_streams)],
    ),
];

impl Collector for Listeners {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut family =
            encoder.encode_descriptor("connections", "Connections that are open", None, MetricType::Gauge)?;
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
