/// Whether a circuit admits calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize, schemars::JsonSchema), serde(rename_all = "snake_case"))]
pub enum CircuitState {
    /// Admits calls.
    #[default]
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
#[cfg_attr(feature = "service", derive(serde::Serialize, schemars::JsonSchema))]
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
