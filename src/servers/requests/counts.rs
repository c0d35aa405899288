use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::access::{self, Cut, Entry, Source};
use super::service::CountRequestsLayer;
use crate::error::ErrorKind;
use crate::middleware::metrics::render;

/// Transport of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// HTTP.
    Rest,
    /// A call of gRPC.
    Grpc,
    /// A request of an `ExecuteStream` or `ModelStreamInfer` call.
    GrpcStream,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Rest, Self::Grpc, Self::GrpcStream];

    /// Value of the label `transport`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc_stream",
        }
    }
}

/// All outcomes.
pub(super) const OUTCOMES: [&str; 4 + ErrorKind::ALL.len()] = {
    let mut outcomes = ["ok"; 4 + ErrorKind::ALL.len()];
    let mut at = 0;
    while at < ErrorKind::ALL.len() {
        outcomes[at + 1] = ErrorKind::ALL[at].code();
        at += 1;
    }
    outcomes[at + 1] = "method_not_allowed";
    outcomes[at + 2] = "request_timeout";
    outcomes[at + 3] = "unsupported_media_type";
    outcomes
};

/// Counts of requests, shared between clones. See the [module](super).
#[derive(Clone, Debug, Default)]
pub struct RequestMetrics {
    counts: Arc<Counts>,
    logs_at_info: bool,
}

#[derive(Debug, Default)]
struct Counts {
    transports: [OfTransport; Transport::ALL.len()],
    /// By transport and reason. Reasons are literals, so their number is bounded.
    authentication_failures: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

#[derive(Debug, Default)]
struct OfTransport {
    begun: AtomicU64,
    ended: [AtomicU64; OUTCOMES.len()],
}

impl OfTransport {
    /// Ended requests by outcome, and at least as many begun requests.
    fn read(&self) -> ([u64; OUTCOMES.len()], u64) {
        // Begun is counted before ended, and read after it.
        let ended = self.ended.each_ref().map(|count| count.load(Ordering::Acquire));
        (ended, self.begun.load(Ordering::Acquire))
    }
}

impl RequestMetrics {
    /// Creates metrics without any counts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the level of [log](super#log) events to `INFO` instead of `DEBUG`.
    #[must_use]
    pub fn access_log(self, on: bool) -> Self {
        Self { logs_at_info: on, ..self }
    }

    /// Creates a layer that counts the requests of a service. Make it the outermost layer.
    pub fn layer(&self, transport: Transport) -> CountRequestsLayer {
        CountRequestsLayer::new(self.clone(), transport)
    }

    /// Number of ended requests by outcome.
    pub fn ended(&self, transport: Transport) -> Vec<(&'static str, u64)> {
        let (ended, _) = self.counts.transports[transport as usize].read();
        OUTCOMES.into_iter().zip(ended).filter(|(_, count)| *count > 0).collect()
    }

    /// Number of requests that began.
    pub fn begun(&self, transport: Transport) -> u64 {
        self.counts.transports[transport as usize].begun.load(Ordering::Acquire)
    }

    /// Number of requests in flight.
    pub fn in_flight(&self, transport: Transport) -> u64 {
        let (ended, begun) = self.counts.transports[transport as usize].read();
        begun - ended.iter().sum::<u64>()
    }

    /// Counts a request that failed authentication. `reason` is the
    /// [code](crate::middleware::authenticate::Denied::code) that
    /// [`AuthenticateLayer::on_failure`](crate::layers::AuthenticateLayer::on_failure) passes on.
    #[cfg(feature = "auth")]
    pub fn authentication_failed(&self, transport: Transport, reason: &'static str) {
        *self.counts.authentication_failures.lock().entry((transport.as_str(), reason)).or_default() += 1;
    }

    /// Returns these metrics as OpenMetrics text, with the prefix `kernel`.
    pub fn render(&self) -> String {
        let encoder = Box::new(Encoder(Arc::clone(&self.counts)));
        render(|registry| registry.sub_registry_with_prefix("kernel").register_collector(encoder))
    }

    pub(super) fn begin(&self, transport: Transport) -> Call {
        self.counts.transports[transport as usize].begun.fetch_add(1, Ordering::AcqRel);
        Call { counts: Some(Arc::clone(&self.counts)), transport, entry: None }
    }

    /// Source of a request, if its end is to be logged.
    pub(super) fn source<B>(&self, request: &Request<B>) -> Option<Source> {
        access::is_read(self.logs_at_info).then(|| Source::of(request, self.logs_at_info))
    }
}

/// A request in flight. If it is dropped before it ends, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    /// `None` once it has ended.
    counts: Option<Arc<Counts>>,
    transport: Transport,
    /// Log entry. Boxed, because most programs log none.
    entry: Option<Box<Entry>>,
}

impl Call {
    /// Enables the log entry.
    pub(super) fn log_end(&mut self, entry: Entry) {
        self.entry = Some(Box::new(entry));
    }

    /// The log entry.
    pub(super) fn entry(&mut self) -> Option<&mut Entry> {
        self.entry.as_deref_mut()
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Counts and logs the end, once.
    pub(crate) fn end(&mut self, outcome: &'static str) {
        self.end_with(outcome, None);
    }

    /// Counts and logs a response that failed while it was sent.
    pub(super) fn fail(&mut self) {
        self.end_with(ErrorKind::Internal.code(), Some(Cut::Failed));
    }

    fn end_with(&mut self, outcome: &'static str, cut: Option<Cut>) {
        if let Some(counts) = self.counts.take() {
            // A code that is not in the table would be a bug.
            let known = OUTCOMES.iter().position(|known| *known == outcome);
            let index = known.unwrap_or(1 + ErrorKind::Internal as usize);
            counts.transports[self.transport as usize].ended[index].fetch_add(1, Ordering::AcqRel);
        }
        if let Some(entry) = self.entry.take() {
            entry.log(self.transport, outcome, cut);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (kind, cut) = match std::thread::panicking() {
            true => (ErrorKind::Internal, Cut::Panicked),
            false => (ErrorKind::Cancelled, Cut::Closed),
        };
        self.end_with(kind.code(), Some(cut));
    }
}

#[derive(Debug)]
struct Encoder(Arc<Counts>);

impl Collector for Encoder {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(counts) = self;
        let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
        // Read once, so that the metrics are consistent.
        let read = Transport::ALL.map(|transport| (transport.as_str(), counts.transports[transport as usize].read()));

        let help = "Requests that ended, by outcome";
        let mut family = encoder.encode_descriptor("server_requests", help, None, MetricType::Counter)?;
        for (transport, (ended, _)) in &read {
            for (outcome, count) in OUTCOMES.iter().zip(ended).filter(|(_, count)| **count > 0) {
                let labels = [("transport", *transport), ("outcome", outcome)];
                family.encode_family(&labels)?.encode_counter(count, exemplar)?;
            }
        }
        let help = "Requests that started";
        let mut family = encoder.encode_descriptor("server_requests_begun", help, None, MetricType::Counter)?;
        for (transport, (_, begun)) in &read {
            family.encode_family(&[("transport", *transport)])?.encode_counter(begun, exemplar)?;
        }
        let help = "Requests in flight";
        let mut family = encoder.encode_descriptor("server_requests_in_flight", help, None, MetricType::Gauge)?;
        for (transport, (ended, begun)) in &read {
            let in_flight = begun - ended.iter().sum::<u64>();
            family.encode_family(&[("transport", *transport)])?.encode_gauge(&in_flight)?;
        }
        let help = "Requests that failed authentication, by reason";
        let mut family = encoder.encode_descriptor("authentication_failures", help, None, MetricType::Counter)?;
        for ((transport, reason), count) in &*counts.authentication_failures.lock() {
            let labels = [("transport", *transport), ("reason", *reason)];
            family.encode_family(&labels)?.encode_counter(count, exemplar)?;
        }
        Ok(())
    }
}
