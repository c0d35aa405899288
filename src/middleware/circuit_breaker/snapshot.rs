use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::circuits::Snapshots;

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

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
#[derive(Clone)]
pub struct CircuitBreakerHandle {
    circuits: Arc<dyn Snapshots>,
}

impl CircuitBreakerHandle {
    pub(super) fn new(circuits: Arc<dyn Snapshots>) -> Self {
        Self { circuits }
    }

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
        let (encoder, circuits) = (&mut encoder, &*circuits);
        let help = "Tenants whose own circuit is open";
        encode(encoder, "circuit_tenants_open", help, circuits, |it| ConstGauge::new(it.tenants_open))?;
        let help = "Times that the circuit has opened";
        encode(encoder, "circuit_opened", help, circuits, |it| ConstCounter::new(it.opened))?;
        let help = "Times that the circuit of a single tenant has opened";
        encode(encoder, "circuit_tenants_opened", help, circuits, |it| ConstCounter::new(it.tenants_opened))?;
        let help = "Calls that the circuit has rejected";
        encode(encoder, "circuit_rejected", help, circuits, |it| ConstCounter::new(it.rejected))
    }
}

fn encode<M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    circuits: &[CircuitSnapshot],
    metric: impl Fn(&CircuitSnapshot) -> M,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, M::TYPE)?;
    for circuit in circuits {
        metric(circuit).encode(family.encode_family(&[("circuit", circuit.circuit.as_str())])?)?;
    }
    Ok(())
}

impl fmt::Debug for CircuitBreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerHandle").field("circuits", &self.snapshot()).finish()
    }
}
