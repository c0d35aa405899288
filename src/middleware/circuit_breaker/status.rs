use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::circuits::Statuses;

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize, schemars::JsonSchema), serde(rename_all = "snake_case"))]
pub enum CircuitState {
    /// They do.
    Closed,
    /// They are refused.
    Open,
    /// Some do, to see how they end.
    HalfOpen,
}

impl CircuitState {
    const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// `"closed"`, `"open"` or `"half_open"`.
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

/// How a circuit is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize, schemars::JsonSchema))]
#[non_exhaustive]
pub struct CircuitStatus {
    /// Its key; `all` where there is no other; `rest` of the requests that have none of their own.
    pub circuit: String,
    /// Whether calls go through. One that is due for a probe is open until there is a call.
    pub state: CircuitState,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Calls that ended in the window, of those that count.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Those of them that took too long.
    pub slow: u32,
    /// How often it has opened.
    pub opened: u64,
    /// Calls that it has refused, those included that the circuits of single tenants have.
    pub refused: u64,
    /// Tenants whose own circuit of this operation is open.
    pub tenants_open: u32,
    /// How often a tenant's own circuit of this operation has opened.
    pub tenants_opened: u64,
    /// The time until the next call can go through, in milliseconds.
    pub retry_in_ms: u64,
}

/// Reads the circuits of a [`CircuitBreakerLayer`](super::CircuitBreakerLayer), for health pages and metrics. Clones read
/// the same.
#[derive(Clone)]
pub struct CircuitBreakerHandle {
    circuits: Arc<dyn Statuses>,
}

impl CircuitBreakerHandle {
    pub(super) fn new(circuits: Arc<dyn Statuses>) -> Self {
        Self { circuits }
    }

    /// All circuits, as of now.
    pub fn statuses(&self) -> Vec<CircuitStatus> {
        self.circuits.statuses()
    }

    /// Adds `circuit_state`, `circuit_tenants_open`, `circuit_opened_total`, `circuit_tenants_opened_total` and
    /// `circuit_refused_total` to a registry, with the label `circuit`.
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
        let statuses = self.statuses();

        let help = "1 at the state that the circuit is in";
        let mut family = encoder.encode_descriptor("circuit_state", help, None, MetricType::Gauge)?;
        for status in &statuses {
            for state in CircuitState::ALL {
                let labels = [("circuit", status.circuit.as_str()), ("state", state.as_str())];
                family.encode_family(&labels)?.encode_gauge(&i64::from(state == status.state))?;
            }
        }

        let help = "Tenants whose own circuit is open, while the circuit of the others need not be";
        let mut family = encoder.encode_descriptor("circuit_tenants_open", help, None, MetricType::Gauge)?;
        for status in &statuses {
            let labels = [("circuit", status.circuit.as_str())];
            family.encode_family(&labels)?.encode_gauge(&i64::from(status.tenants_open))?;
        }

        let mut counter = |name, help, count: fn(&CircuitStatus) -> u64| -> Result<(), fmt::Error> {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for status in &statuses {
                let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                let labels = [("circuit", status.circuit.as_str())];
                family.encode_family(&labels)?.encode_counter(&count(status), exemplar)?;
            }
            Ok(())
        };
        counter("circuit_opened", "How often the circuit has opened", |status| status.opened)?;
        let help = "How often the circuit of a single tenant has opened";
        counter("circuit_tenants_opened", help, |status| status.tenants_opened)?;
        counter("circuit_refused", "Calls that the circuit has refused", |status| status.refused)?;
        Ok(())
    }
}

impl fmt::Debug for CircuitBreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerHandle").field("circuits", &self.statuses()).finish()
    }
}
