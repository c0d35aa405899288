//! [`BackendKind`], and the choice between backends as a response reports it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The kind of hardware that runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "service", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[non_exhaustive]
pub enum BackendKind {
    /// The host's processors.
    #[cfg_attr(feature = "service", serde(rename = "CPU"))]
    Cpu,
    /// An NVIDIA GPU.
    #[cfg_attr(feature = "service", serde(rename = "CUDA"))]
    Cuda,
}

impl BackendKind {
    /// Returns `"CPU"` or `"CUDA"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Error of parsing a [`BackendKind`]: neither `cpu` nor `cuda`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownBackend;

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backend is one of: cpu, cuda")
    }
}

impl std::error::Error for UnknownBackend {}

/// Parses `cpu` and `cuda`, in upper or lower case.
impl FromStr for BackendKind {
    type Err = UnknownBackend;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let kinds = [Self::Cpu, Self::Cuda];
        kinds.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(s)).ok_or(UnknownBackend)
    }
}

/// Why a request ran on its backend, where more than one could have run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendChoice {
    /// The reason.
    pub reason: ChoiceReason,
    /// The predicted time to the response on each backend that could have run it, the wait for others included. The first is
    /// the one that was chosen.
    pub predicted: [(BackendKind, Duration); 2],
}

impl BackendChoice {
    /// Returns the predicted time to the response on a backend.
    pub fn predicted_on(&self, backend: BackendKind) -> Option<Duration> {
        self.predicted.iter().find(|(kind, _)| *kind == backend).map(|(_, time)| *time)
    }
}

/// Writes the times and the reason, the chosen backend first: `CPU 12.0µs, CUDA 85.0µs (predicted)`.
impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, predicted: [(chosen, time), (other, other_time)] } = self;
        write!(f, "{chosen} {time:.1?}, {other} {other_time:.1?} ({})", reason.as_str())
    }
}

/// The reason of a [`BackendChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChoiceReason {
    /// The response was predicted to come first from there.
    Predicted,
    /// To measure how long such runs take there.
    Explored,
    /// The request asked for the backend.
    Requested,
}

impl ChoiceReason {
    /// Returns `"predicted"`, `"explored"` or `"requested"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Predicted => "predicted",
            Self::Explored => "explored",
            Self::Requested => "requested",
        }
    }
}
