//! [`Local`]: what this machine has.

use std::fmt;
use std::task::{Context, Poll};

use schemars::JsonSchema;
use serde::Serialize;
use tower::load::Load;
use tower_service::Service;

use super::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use super::cuda::{CudaBackend, CudaStatus, Unavailable};
use super::{LaneLoad, PoolStatus, RunFuture};
#[cfg(feature = "cuda")]
use crate::service::{BackendKind, KernelInfo};
use crate::service::{Job, KernelError, KernelResponse};

/// The backends of this machine as one.
///
/// A kernel with CUDA code runs on the CUDA device while there is one, and everything else on the CPU. When the device
/// is lost, kernels that have code for the CPU go on there, and the others answer
/// [`DeviceLost`](KernelError::DeviceLost).
///
/// Which kernel comes is known only at `call`, so it is ready when both backends are, and gives back the slot that the
/// kernel does not need.
// The backends' own `Clone` starts without what this one has reserved.
#[derive(Clone, Debug)]
pub struct Local {
    cpu: CpuBackend,
    #[cfg(feature = "cuda")]
    cuda: Result<CudaBackend, Unavailable>,
}

impl Local {
    /// Opens what there is: the first CUDA device, if one answers, and the CPU.
    pub fn detect() -> Self {
        Self {
            cpu: CpuBackend::new(),
            #[cfg(feature = "cuda")]
            cuda: CudaBackend::open(0),
        }
    }

    /// These backends, or the reason why there is no CUDA.
    #[cfg(feature = "cuda")]
    pub fn with_backends(cpu: CpuBackend, cuda: Result<CudaBackend, Unavailable>) -> Self {
        Self { cpu, cuda }
    }

    /// What there is and how it is.
    pub fn status(&self) -> LocalStatus {
        LocalStatus {
            cpu: CpuStatus {
                processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                pool: self.cpu.status(),
            },
            #[cfg(feature = "cuda")]
            cuda: match &self.cuda {
                Ok(cuda) => CudaState::On(cuda.status()),
                Err(why) => CudaState::Off { off: why.to_string() },
            },
            #[cfg(not(feature = "cuda"))]
            cuda: CudaState::Off { off: "this program was built without the feature `cuda`".to_owned() },
        }
    }

    /// Where a kernel runs, given that the CUDA device is there.
    #[cfg(feature = "cuda")]
    fn takes_cuda(info: &KernelInfo, cuda: &CudaBackend) -> bool {
        let has = |backend| info.backends.contains(&backend);
        // On a lost device only those that have nowhere else to go, to be told so.
        has(BackendKind::Cuda) && (cuda.lost().is_none() || !has(BackendKind::Cpu))
    }
}

/// What a machine has and how it is, for health checks and start-up messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct LocalStatus {
    /// The host's processors.
    pub cpu: CpuStatus,
    /// The CUDA device, or why there is none.
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

/// A CUDA device, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CudaState {
    /// It was opened. It may have been lost since.
    #[cfg(feature = "cuda")]
    On(CudaStatus),
    /// There is none.
    Off {
        /// Why.
        off: String,
    },
}

/// One line: `CUDA device 0 (NVIDIA H200) and CPU (16 processors)`, or why there is no CUDA.
impl fmt::Display for LocalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu: CpuStatus { processors, pool: _ }, cuda } = self;
        match cuda {
            #[cfg(feature = "cuda")]
            CudaState::On(CudaStatus { device, lost: None, .. }) => {
                write!(f, "CUDA device {} ({}) and ", device.ordinal, device.name)?;
            }
            #[cfg(feature = "cuda")]
            CudaState::On(CudaStatus { lost: Some(why), .. }) => write!(f, "{why}; ")?,
            CudaState::Off { off } => write!(f, "CUDA is off ({off}); ")?,
        }
        write!(f, "CPU ({processors} processors)")
    }
}

impl Service<Job> for Local {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = RunFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        // Both are asked each time, so that a waker is registered with whichever is full. A lost device counts no more.
        #[cfg(feature = "cuda")]
        if let Ok(cuda) = &mut self.cuda
            && cuda.poll_ready(cx).is_pending()
        {
            let _ = self.cpu.poll_ready(cx)?;
            return Poll::Pending;
        }
        self.cpu.poll_ready(cx)
    }

    fn call(&mut self, job: Job) -> RunFuture {
        #[cfg(feature = "cuda")]
        if let Ok(cuda) = &mut self.cuda {
            if Self::takes_cuda(job.kernel().info(), cuda) {
                self.cpu.release();
                return match cuda.lost().cloned() {
                    Some(lost) => cuda.refuse(lost),
                    None => cuda.call(job),
                };
            }
            cuda.release();
        }
        self.cpu.call(job)
    }
}

impl Load for Local {
    type Metric = LaneLoad;

    fn load(&self) -> LaneLoad {
        let LaneLoad(load) = self.cpu.load();
        #[cfg(feature = "cuda")]
        let load = load + self.cuda.as_ref().map_or(0, |cuda| cuda.load().0);
        LaneLoad(load)
    }
}
