use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::backends::PoolStatus;
#[cfg(feature = "cuda")]
use crate::backends::cuda::{CudaStatus, MissingDevice};
#[cfg(all(feature = "isolation", target_os = "linux"))]
use crate::backends::process::ProcessStatus;

/// The devices of a machine and their state, for health checks and start-up messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct LocalStatus {
    /// The host's processors.
    pub cpu: CpuStatus,
    /// The CUDA devices, or why there are none.
    pub cuda: CudaState,
}

/// The state of the host's processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct CpuStatus {
    /// The number of processors.
    pub processors: usize,
    /// The jobs of the CPU backend.
    pub pool: PoolStatus,
    /// The processes that run the kernels; absent if the server's own process does.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessStatus>,
}

impl CpuStatus {
    /// Describes what is wrong, for people.
    pub fn problems(&self) -> Vec<String> {
        let PoolStatus { up, workers, alive, .. } = self.pool;
        #[cfg_attr(
            not(all(feature = "isolation", target_os = "linux")),
            expect(unused_mut, reason = "only processes add to it")
        )]
        let mut problems = match alive {
            _ if !up => vec!["the CPU takes no jobs any more".to_owned()],
            alive if alive < workers => vec![format!("{alive} of {workers} workers of the CPU take jobs")],
            _ => Vec::new(),
        };
        #[cfg(all(feature = "isolation", target_os = "linux"))]
        if up && let Some(processes) = &self.processes {
            problems.extend(processes.problems("the CPU"));
        }
        problems
    }
}

/// The state of the CUDA devices, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CudaState {
    /// At least one device was opened. Each may have been lost since.
    #[cfg(feature = "cuda")]
    On {
        /// The devices that were opened.
        devices: Vec<CudaStatus>,
        /// The devices that could not be opened.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        missing: Vec<MissingDevice>,
    },
    /// There are no devices.
    Off {
        /// Why there are none.
        reason: String,
    },
}

impl CudaState {
    /// Returns whether at least one device can be used.
    pub fn is_up(&self) -> bool {
        match self {
            #[cfg(feature = "cuda")]
            Self::On { devices, .. } => devices.iter().any(|device| device.lost.is_none()),
            Self::Off { .. } => false,
        }
    }

    /// Returns the number of modules of device code that are still to be loaded before the devices are ready, on all of them. A
    /// standby that has taken over loads them beside requests.
    pub fn modules_loading(&self) -> usize {
        match self {
            #[cfg(feature = "cuda")]
            Self::On { devices, .. } => {
                let starting = devices.iter().filter(|device| device.lost.is_none() && !device.has_taken_over());
                starting.map(|device| device.modules_loading).sum()
            }
            Self::Off { .. } => 0,
        }
    }

    /// Describes what is wrong with each device, for people.
    pub fn problems(&self) -> Vec<String> {
        match self {
            #[cfg(feature = "cuda")]
            Self::On { devices, missing } => {
                let of_devices = devices.iter().flat_map(CudaStatus::problems);
                of_devices.chain(missing.iter().map(ToString::to_string)).collect()
            }
            Self::Off { reason } => vec![format!("CUDA is off ({reason})")],
        }
    }
}

/// Writes one line: `CUDA device 0 (NVIDIA H200) and CPU (16 processors)`, preceded by the problems.
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
