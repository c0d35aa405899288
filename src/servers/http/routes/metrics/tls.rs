//! Metrics of TLS.

use std::fmt::Error;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::servers::hyper::{Tls, TlsStatus};

pub(super) fn register(registry: &mut Registry, tls: &Tls) {
    registry.register_collector(Box::new(Certificate(tls.status())));
}

#[derive(Debug)]
struct Certificate(TlsStatus);

impl Collector for Certificate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(TlsStatus { expires, reloads, reload_failures, handshake_failures }) = self;
        let left = match expires.duration_since(SystemTime::now()) {
            Ok(left) => left.as_secs_f64(),
            Err(past) => -past.duration().as_secs_f64(),
        };
        let help = "Time until the certificate or one of its chain expires; negative if it has expired";
        let gauge = ConstGauge::new(left);
        gauge.encode(encoder.encode_descriptor(
            "tls_certificate_expiry",
            help,
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?)?;

        let help = "Reloads of changed certificate files, by outcome";
        let mut family = encoder.encode_descriptor("tls_reloads", help, None, MetricType::Counter)?;
        for (outcome, count) in [("ok", *reloads), ("failed", *reload_failures)] {
            ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }

        let help = "Failed TLS handshakes, by reason";
        let mut family = encoder.encode_descriptor("tls_handshake_failures", help, None, MetricType::Counter)?;
        for (why, count) in handshake_failures {
            ConstCounter::new(*count).encode(family.encode_family(&[("reason", why.as_str())])?)?;
        }
        Ok(())
    }
}
