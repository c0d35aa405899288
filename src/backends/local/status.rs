//! What a machine has and how it is.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::backends::PoolStatus;
#[cfg(feature = "cuda")]
use crate::backends::cuda::{CudaStatus, MissingDevice};

/// What a machine has and how it is, for health checks and start-up messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct LocalStatus {
    /// The host's processors.
    pub cpu: CpuStatus,
    /// The CUDA devices, or why there are none.
    pub cuda: CudaState,
}

/// The host's processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct CpuStatus {
    /// How many there are.
    pub processors: usize,
    /// What runs and waits there.
    pub pool: PoolStatus,
}

impl CpuStatus {
    /// What is wrong, for people.
    pub fn problems(&self) -> Vec<String> {
        let PoolStatus { up, workers, alive, .. } = self.pool;
        match alive {
            _ if !up => vec!["the CPU takes no jobs any more".to_owned()],
            alive if alive < workers => vec![format!("{alive} of {workers} workers of the CPU take jobs")],
            _ => Vec::new(),
        }
    }
}

/// The CUDA devices, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CudaState {
    /// One at least was opened. Each may have been lost since.
    #[cfg(feature = "cuda")]
    On {
        /// Those that were opened.
        devices: Vec<CudaStatus>,
        /// Those that were to be opened and could not be.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        missing: Vec<MissingDevice>,
    },
    /// There is none.
    Off {
        /// Why.
        reason: String,
    },
}

impl CudaState {
    /// Whether one can be used.
    pub fn is_up(&self) -> bool {
        match self {
            #[cfg(feature = "cuda")]
            Self::On { devices, .. } => devices.iter().any(|device| device.lost.is_none()),
            Self::Off { .. } => false,
        }
    }

    /// What is wrong with each of those that cannot be used.
    pub fn problems(&self) -> Vec<String> {
        match self {
            #[cfg(feature = "cuda")]
            Self::On { devices, missing } => {
                let lost = devices.iter().filter_map(|device| device.lost.clone());
                lost.chain(missing.iter().map(ToString::to_string)).collect()
            }
            Self::Off { reason } => vec![format!("CUDA is off ({reason})")],
        }
    }
}

/// One line: `CUDA device 0 (NVIDIA H200) and CPU (16 processors)`, with what is wrong first.
impl fmt::Display for LocalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cuda } = self;
        for problem in cpu.problems().into_iter().chain(cuda.problems()) {
            write!(f, "{problem}; ")?;
        }
        #[cfg(feature = "cuda")]
        if let CudaState::On { devices, .. } = cuda {
            let up = devices.iter().filter(|device| device.lost.is_none());
            let names: Vec<_> = up
                .map(|CudaStatus { device, .. }| format!("CUDA device {} ({})", device.ordinal, device.name))
                .collect();
            if !names.is_empty() {
                write!(f, "{} and ", names.join(", "))?;
            }
        }
        write!(f, "CPU ({} processors)", cpu.processors)
    }
}
