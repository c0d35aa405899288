//! [`Local`]: what this machine has.

mod device_set;
mod future;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use self::device_set::{Berth, Fleet, has};
pub use self::future::LocalFuture;
pub use self::status::{CpuStatus, CudaState, LocalStatus};
use super::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use super::cuda::CudaDevices;
use super::worker_pool::{Profile, Slot};
use super::{PoolLoad, RunFuture};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Unavailable};
use crate::service::{BackendKind, Job, KernelError, KernelResponse};

/// The backends of this machine as one.
///
/// A kernel with CUDA code runs on a CUDA device while there is one, and everything else on the CPU. Of two devices, taken
/// at random, a job goes to the one whose jobs are [predicted](PoolLoad::predicted) to take less time.
///
/// A device that is lost takes nothing more, and the others go on. What waited for it goes to another device, or to the CPU
/// where no device is left and there is time enough before its deadline. What ran there may be what it was lost to, so no
/// other device is given it: it is run again on the CPU where its kernel is [pure](crate::service::KernelInfo::pure).
/// What has nowhere to go answers [`DeviceLost`](KernelError::DeviceLost).
///
/// Which kernel comes is known only at `call`, so it is ready when the CPU and one of the devices are, and gives back the
/// slot that the kernel does not need.
#[derive(Debug)]
pub struct Local {
    fleet: Arc<Fleet>,
    #[cfg(feature = "cuda")]
    cuda: Arc<Result<CudaDevices, Unavailable>>,
    cpu: Slot,
    berth: Berth,
}

/// A clone starts without a slot: what one handle has reserved is its alone.
impl Clone for Local {
    fn clone(&self) -> Self {
        Self {
            fleet: Arc::clone(&self.fleet),
            #[cfg(feature = "cuda")]
            cuda: Arc::clone(&self.cuda),
            cpu: self.cpu.clone(),
            berth: Berth::default(),
        }
    }
}

impl Local {
    /// Opens what there is: all CUDA devices that answer, and the CPU. The driver hides devices from a process that has
    /// the variable `CUDA_VISIBLE_DEVICES`.
    pub fn detect() -> Self {
        #[cfg(feature = "cuda")]
        return Self::with_backends(CpuBackend::new(), CudaDevices::open());
        #[cfg(not(feature = "cuda"))]
        Self::over(Fleet::new(Arc::clone(CpuBackend::new().lanes()), Vec::new()))
    }

    fn over(fleet: Fleet) -> Self {
        Self {
            cpu: Slot::new(Arc::clone(fleet.cpu())),
            fleet: Arc::new(fleet),
            #[cfg(feature = "cuda")]
            cuda: Arc::new(Err(Unavailable::TurnedOff)),
            berth: Berth::default(),
        }
    }

    /// These backends, or the reason why there is no CUDA. The devices are one
    /// [`CudaBackend`](super::cuda::CudaBackend) or more.
    #[cfg(feature = "cuda")]
    pub fn with_backends(cpu: CpuBackend, cuda: Result<impl Into<CudaDevices>, Unavailable>) -> Self {
        let cuda = cuda.map(Into::into);
        let devices = cuda.iter().flat_map(CudaDevices::backends);
        let fleet = Fleet::new(Arc::clone(cpu.lanes()), devices.map(|device| Arc::clone(device.lanes())).collect());
        Self { cuda: Arc::new(cuda), ..Self::over(fleet) }
    }

    /// How many jobs run at one time: on all CUDA devices, or on the CPU where there is none.
    pub fn lanes(&self) -> usize {
        self.fleet.lanes()
    }

    /// Whether there is a CUDA device, or was one before it was lost.
    pub(crate) fn has_devices(&self) -> bool {
        self.cpu_alone().is_none()
    }

    /// How the CPU runs, where there never was any device.
    pub(crate) fn cpu_alone(&self) -> Option<&Profile> {
        self.fleet.cpu_alone()
    }

    /// What there is and how it is.
    pub fn status(&self) -> LocalStatus {
        LocalStatus {
            cpu: CpuStatus {
                processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                pool: self.fleet.cpu().status(),
            },
            #[cfg(feature = "cuda")]
            cuda: match &*self.cuda {
                Ok(cuda) => cuda.state(),
                Err(why) => CudaState::Off { reason: why.to_string() },
            },
            #[cfg(not(feature = "cuda"))]
            cuda: CudaState::Off { reason: "this program was built without the feature `cuda`".to_owned() },
        }
    }

    /// The sensors of the CUDA devices, of those that have any.
    #[cfg(feature = "cuda")]
    pub fn gpus(&self) -> Vec<Gpu> {
        let backends = self.cuda.iter().flat_map(|cuda| cuda.backends());
        backends.filter_map(|backend| backend.gpu().cloned()).collect()
    }
}

impl Service<Job> for Local {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = LocalFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        // Both are asked each time, so that a waker is registered with whichever is full. A lost device counts no more.
        let device = self.berth.poll_reserve(&self.fleet, cx);
        match self.cpu.poll_reserve(cx) {
            Poll::Ready(Ok(())) if device.is_pending() => Poll::Pending,
            cpu => cpu,
        }
    }

    fn call(&mut self, job: Job) -> LocalFuture {
        let device = self.berth.take();
        let info = job.kernel().info();
        let run = match device {
            Some(mut slot) if has(info, BackendKind::Cuda) => {
                self.cpu.release();
                RunFuture::new(&mut slot, job)
            }
            _ => match self.fleet.lost().filter(|_| has(info, BackendKind::Cuda) && !has(info, BackendKind::Cpu)) {
                Some((lanes, lost)) => {
                    self.cpu.release();
                    RunFuture::refuse(lanes, lost.clone())
                }
                None => RunFuture::new(&mut self.cpu, job),
            },
        };
        LocalFuture::new(run, &self.fleet)
    }
}

impl Load for Local {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.fleet.load()
    }
}
