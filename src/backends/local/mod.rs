//! [`Local`]: the devices of this machine as one backend.

mod choice;
#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod codec_tests;
mod device_permit;
mod device_set;
mod future;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

pub(crate) use self::choice::Preference;
use self::device_permit::DevicePermit;
use self::device_set::{DeviceSet, KINDS};
pub use self::future::LocalFuture;
pub use self::status::{CpuStatus, CudaState, LocalStatus};
use super::PoolLoad;
use super::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use super::cuda::CudaDevices;
#[cfg(all(feature = "isolation", target_os = "linux"))]
use super::process::Processes;
use super::worker_pool::Profile;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Unavailable};
use crate::service::{BackendKind, Job, KernelError, KernelRegistry, KernelResponse, KernelService};
#[cfg(feature = "cuda")]
use crate::service::{OperandDevices, RegisteredKernel};

/// Runs jobs on the devices of this machine: its CUDA devices, and the CPU.
///
/// # The choice of the backend
/// A kernel with CUDA code runs where the response is predicted to come first: on the CPU or on a CUDA device. The prediction is
/// the wait for a free worker, the hop to its thread, and the run. What a run takes is at first the estimate of the kernel's
/// [cost](crate::service::Kernel::cost), and then what runs of its size took on that backend; so a device that is full gives
/// work to the CPU as long as the response comes earlier from there, and a kernel whose cost is wrong is placed right after a
/// few runs. To know both backends, about one percent of a kernel's run time is spent on runs that measure the other one.
/// On the CPU, and if the kernel is pure, such a run ends at twice what the device takes, and is repeated there.
///
/// A request may [ask](crate::service::KernelRequest::set_backend) for a backend. A response says why it ran where it did, and
/// what was predicted, in its [`Execution::choice`](crate::request::Execution::choice).
///
/// Of two random devices, the one with the lower [predicted](PoolLoad::predicted) load gets the job. A job that refers to
/// [operands](crate::service::Operands) goes to a device that has them, unless another one, the upload included, is expected
/// to start it earlier.
///
/// # Lost devices
///
/// A lost device accepts no more jobs; the others go on. Jobs that were queued there go to another device, or to the CPU if
/// no device is left and they can still meet their deadline. A job that ran there may be what the device was lost to, so no
/// other device gets it: it is run again on the CPU if its kernel is [pure](crate::service::KernelInfo::pure). A job that no
/// other device can run fails with [`DeviceLost`](KernelError::DeviceLost).
///
/// # Readiness
/// The kernel is known only at `call`, so `Ready` means that the CPU and one of the devices have reserved a permit. The first
/// poll of the response future releases those that the job does not need. A large input is decoded on a thread for that, with
/// the permit of the CPU alone; then the job waits for a permit of a device again.
#[derive(Debug)]
pub struct Local {
    devices: Arc<DeviceSet>,
    #[cfg(feature = "cuda")]
    cuda: Arc<Result<CudaDevices, Unavailable>>,
    /// The processes that run the CPU's kernels, if it is isolated. They end with their last owner.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    cpu_processes: Option<Arc<Processes>>,
    /// One of each of the [`KINDS`].
    permits: [DevicePermit; KINDS.len()],
}

/// A clone starts without a permit: a reservation belongs to the handle that made it.
impl Clone for Local {
    fn clone(&self) -> Self {
        Self {
            devices: Arc::clone(&self.devices),
            #[cfg(feature = "cuda")]
            cuda: Arc::clone(&self.cuda),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            cpu_processes: self.cpu_processes.clone(),
            permits: KINDS.map(DevicePermit::new),
        }
    }
}

impl Local {
    /// Opens all CUDA devices that are available, and the CPU. The environment variable `CUDA_VISIBLE_DEVICES` hides devices
    /// from the process.
    pub fn detect() -> Self {
        #[cfg(feature = "cuda")]
        return Self::with_backends(CpuBackend::new(), CudaDevices::open());
        #[cfg(not(feature = "cuda"))]
        Self::over(DeviceSet::new(vec![Arc::clone(CpuBackend::new().pool())]))
    }

    fn over(devices: DeviceSet) -> Self {
        Self {
            devices: Arc::new(devices),
            #[cfg(feature = "cuda")]
            cuda: Arc::new(Err(Unavailable::TurnedOff)),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            cpu_processes: None,
            permits: KINDS.map(DevicePermit::new),
        }
    }

    /// Combines these backends. `cuda` is one [`CudaBackend`](super::cuda::CudaBackend) or more, or why there is none.
    #[cfg(feature = "cuda")]
    pub fn with_backends(cpu: CpuBackend, cuda: Result<impl Into<CudaDevices>, Unavailable>) -> Self {
        let cuda = cuda.map(Into::into);
        let devices = cuda.iter().flat_map(CudaDevices::backends).map(|device| device.pool());
        let devices = DeviceSet::new(devices.chain([cpu.pool()]).cloned().collect());
        Self {
            cuda: Arc::new(cuda),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            cpu_processes: cpu.shared_processes().cloned(),
            ..Self::over(devices)
        }
    }

    /// Loads the device code of all kernels in the registry onto all CUDA devices, in the background, and has the devices
    /// [place](crate::service::Placement) the registry's operands. Until the code is loaded, servers do not report
    /// readiness; a request that comes anyway loads what it needs.
    ///
    /// [`KernelService::new`] and [`PipelineLayer::over`](crate::pipeline::PipelineLayer::over) do this.
    pub fn load_kernels(&self, registry: &KernelRegistry) {
        #[cfg(feature = "cuda")]
        for device in self.cuda.iter().flat_map(CudaDevices::backends) {
            device.load(registry.list().iter().flat_map(RegisteredKernel::modules).collect());
        }
        #[cfg(feature = "cuda")]
        if self.cuda.is_ok() {
            let devices: Arc<dyn OperandDevices> = Arc::clone(&self.cuda) as _;
            registry.operands().place_on(&Arc::downgrade(&devices));
        }
        let _ = registry;
    }

    /// Returns the number of workers of all CUDA devices, or of the CPU if there are no devices.
    pub fn workers(&self) -> usize {
        self.devices.workers()
    }

    /// Returns the number of CUDA devices, lost ones included.
    pub(crate) fn num_devices(&self) -> usize {
        self.devices.of_kind(BackendKind::Cuda).count()
    }

    /// Returns whether there is a CUDA device, or was one before it was lost.
    pub(crate) fn has_devices(&self) -> bool {
        self.cpu_only().is_none()
    }

    /// Returns the CPU's profile if there never was any device.
    pub(crate) fn cpu_only(&self) -> Option<&Profile> {
        self.devices.cpu_only()
    }

    /// Returns a snapshot of the devices and their pools.
    pub fn status(&self) -> LocalStatus {
        LocalStatus {
            cpu: CpuStatus {
                processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                pool: self.cpu_pool().status(),
                #[cfg(all(feature = "isolation", target_os = "linux"))]
                processes: self.cpu_processes.as_ref().map(|processes| processes.status()),
            },
            #[cfg(feature = "cuda")]
            cuda: match &*self.cuda {
                Ok(cuda) => cuda.state(),
                Err(error) => CudaState::Off { reason: error.to_string() },
            },
            #[cfg(not(feature = "cuda"))]
            cuda: CudaState::Off { reason: "this program was built without the feature `cuda`".to_owned() },
        }
    }

    /// Returns what tells where a job would go.
    pub(crate) fn preference(&self) -> Preference {
        Preference::new(&self.devices)
    }

    fn cpu_pool(&self) -> &super::worker_pool::WorkerPool {
        self.devices.of_kind(BackendKind::Cpu).next().expect("a `Local` has a CPU")
    }

    /// Returns the sensors of the CUDA devices that have some.
    #[cfg(feature = "cuda")]
    pub fn gpus(&self) -> Vec<Gpu> {
        let backends = self.cuda.iter().flat_map(|cuda| cuda.backends());
        backends.filter_map(|backend| backend.gpu().cloned()).collect()
    }
}

// Here and not in `service`, which knows no backends.
impl KernelService<Local> {
    /// Creates a service over the devices of this machine: its CUDA devices, if any are available, and the CPU.
    ///
    /// Opening a device takes a few hundred milliseconds. [`Local::status`] returns which were found.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let (registry, local) = (registry.into(), Local::detect());
        local.load_kernels(&registry);
        Self::with_backend(registry, local)
    }
}

impl Service<Job> for Local {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = LocalFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        // All kinds are polled each time, so that the waker is registered with each that is full. A kind whose devices are
        // lost counts no more, except for the fallback.
        let polls = self.permits.each_mut().map(|permit| permit.poll_reserve(&self.devices, cx));
        if let [.., Poll::Ready(false)] = polls {
            return Poll::Ready(Err(self.cpu_pool().state().closed_error()));
        }
        if polls.iter().any(Poll::is_pending) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, job: Job) -> LocalFuture {
        let permits = self.permits.each_mut().map(DevicePermit::take);
        assert!(permits.iter().any(Option::is_some), "`call` needs `poll_ready` to have returned `Ready(Ok)` first");
        LocalFuture::new(job, permits, &self.devices)
    }
}

impl Load for Local {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.devices.load()
    }
}
