use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::circuits::Circuits;

/// Whether a circuit admits calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize, schemars::JsonSchema), serde(rename_all = "snake_case"))]
pub enum CircuitState {
    /// Admits calls.
    Closed,
    /// Rejects calls.
    Open,
    /// Admits some calls as probes, which decide whether it closes or opens again.
    HalfOpen,
}

impl CircuitState {
    /// Returns `"closed"`, `"open"` or `"half_open"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The state of a circuit at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize, schemars::JsonSchema))]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// Its operation or key; `all` if there is only one; `rest` for the one shared by requests without one of their own.
    pub circuit: String,
    /// Whether calls are admitted. A circuit that is due for a probe is open until the next call.
    pub state: CircuitState,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Successes and failures in the window.
    pub calls: u64,
    /// Failures in the window.
    pub failures: u64,
    /// Slow calls in the window.
    pub slow: u64,
    /// Times that it has opened.
    pub opened: u64,
    /// Calls that were rejected, including those by the circuits of single tenants.
    pub rejected: u64,
    /// Tenants whose own circuit for this operation is open.
    pub tenants_open: u64,
    /// Times that a tenant's own circuit for this operation has opened.
    pub tenants_opened: u64,
    /// Milliseconds until the next call can be admitted.
    pub retry_after_ms: u64,
}

/// Reads the circuits of a [`CircuitBreakerLayer`](super::CircuitBreakerLayer), for health pages and metrics.
#[derive(Clone, Debug)]
pub struct CircuitBreakerHandle {
    pub(super) circuits: Arc<Circuits>,
}

impl CircuitBreakerHandle {
    /// Returns the current state of all circuits, by name; the shared one is last.
    pub fn snapshot(&self) -> Vec<CircuitSnapshot> {
        self.circuits.snapshots()
    }

    /// Adds `circuit_state`, `circuit_tenants_open`, `circuit_opened_total`, `circuit_tenants_opened_total` and
    /// `circuit_rejected_total` to a registry, with the label `circuit`.
    ///
    /// ```
    /// use prometheus_client::{encoding::text, registry::Registry};
    /// use tower_kernels::layers::CircuitBreakerLayer;
    ///
    /// let mut registry = Registry::default();
    /// CircuitBreakerLayer::new().handle().register(registry.sub_registry_with_prefix("kernel"));
    ///
    /// let mut page = String::new();
    /// text::encode(&mut page, &registry).unwrap();
    /// assert!(page.contains(r#"kernel_circuit_state{circuit="all",state="closed"} 1"#), "{page}");
    /// assert!(page.contains(r#"kernel_circuit_opened_total{circuit="all"} 0"#), "{page}");
    /// ```
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }
}

type Metric = (&'static str, &'static str, MetricType, fn(&CircuitSnapshot) -> u64);

const METRICS: [Metric; 4] = [
    ("circuit_tenants_open", "Tenants whose own circuit is open", MetricType::Gauge, |it| it.tenants_open),
    ("circuit_opened", "Times that the circuit has opened", MetricType::Counter, |it| it.opened),
    ("circuit_tenants_opened", "Times that the circuit of a single tenant has opened", MetricType::Counter, |it| {
        it.tenants_opened
    }),
    ("circuit_rejected", "Calls that the circuit has rejected", MetricType::Counter, |it| it.rejected),
];

impl Collector for CircuitBreakerHandle {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let circuits = self.snapshot();
        let help = "1 for the current state of the circuit, 0 for the others";
        let mut family = encoder.encode_descriptor("circuit_state", help, None, MetricType::Gauge)?;
        for circuit in &circuits {
            for state in [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen] {
                let labels = [("circuit", circuit.circuit.as_str()), ("state", state.as_str())];
                family.encode_family(&labels)?.encode_gauge(&i64::from(state == circuit.state))?;
            }
        }
        for (name, help, kind, value) in METRICS {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for circuit in &circuits {
                let labels = [("circuit", circuit.circuit.as_str())];
                let mut metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => metric.encode_gauge(&value(circuit))?,
                    _ => metric.encode_counter::<NoLabelSet, _, u64>(&value(circuit), None)?,
                }
            }
        }
        Ok(())
    }
}
