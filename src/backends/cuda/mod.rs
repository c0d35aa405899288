//! Runs kernels on NVIDIA GPUs.
//!
//! [`CudaBackend`] is one device, [`CudaDevices`] are several. They are built on the [device runtime](crate::cuda), which
//! needs no CUDA toolkit, and to run only the driver.
//!
//! # Workers
//! A worker is a thread that owns CUDA streams, staging memory and device memory, which it reuses from request to request. A
//! kernel's host code runs on it with a [`LaunchContext`](crate::service::LaunchContext). While the worker waits for the
//! device it polls, first without a pause and then with short ones, and checks for cancellation: a cancelled request launches
//! nothing more, and running kernels can poll [`LaunchContext::cancel_flag`](crate::cuda::LaunchContext::cancel_flag). The
//! request's permit is released when the device has finished its work.
//!
//! A worker has a stream for each [`Priority`](crate::request::Priority), and a request's work is queued on the stream of its
//! own. Where blocks of several requests wait for a multiprocessor, those of the highest priority are scheduled first.
//! Running blocks are not preempted, and copies are served in the order they were queued.
//!
//! # Streams that wait for each other
//! The driver maps streams to hardware queues: 8, unless the environment variable `CUDA_DEVICE_MAX_CONNECTIONS` says
//! otherwise (32 at most). Streams on one queue wait for each other, so a small request can wait for a long kernel of another
//! worker. Where there are long kernels and more than 8 streams (the workers times the priorities that are used), set it to
//! 32 before the process starts.
//!
//! Some calls of the driver wait for everything that runs on the device: freeing memory, and loading a module. So a worker
//! that needs more device memory than before, or runs a kernel for the first time, can wait for a long kernel of another.
//! There are no such calls in the steady state.
//!
//! # Operands
//! Where a kernel reads an array of an [operand](crate::service::Operands) with
//! [`LaunchContext::input`](crate::cuda::LaunchContext::input), the device makes a copy at the first need and keeps it for the
//! requests that follow, in memory that kernels cannot write to. Copies that no request uses are evicted, the least recently
//! used first, where they exceed [`CudaConfig::operand_memory`] or a request waits for device memory. If there is no memory
//! for a copy, the request uploads the array for itself. A copy that the operand's [placement](crate::service::Placement)
//! asks for is evicted only where a request waits for device memory and no other copy is left. Small arrays of an operand
//! share an allocation, of which there is one for every 2 MiB.
//!
//! # Telemetry
//! One in [`CudaConfig::timing_sample_interval`] requests is timed with CUDA events: the response has the times of its copies
//! and kernels as [`DeviceTimes`](crate::request::DeviceTimes), with the time that the kernel's cost would take at the
//! device's [`Peak`]. [`Gpu`] reads the device's sensors, if NVIDIA's management library is installed.
//!
//! # Lost devices
//! A fault of running code (an illegal address, an assertion) makes the device unusable for the whole process, and CUDA
//! cannot recover it. The backend then fails every request with [`KernelError::DeviceLost`]. A device that does not stop
//! cancelled work within [`CudaConfig::hang_timeout`] is lost as well. Nothing of it is freed then, because it may still
//! write to its memory, and because the driver would wait for it.

mod devices;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod isolated;
mod memory_budget;
mod open_device;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod shared_memory;
mod usage;
mod worker;

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tower::load::Load;
use tower_service::Service;

pub use self::devices::{CudaDevices, MissingDevice};
#[cfg(all(feature = "isolation", target_os = "linux"))]
use self::isolated::IsolatedDevice;
use self::open_device::OpenDevice;
#[cfg(all(feature = "isolation", target_os = "linux"))]
pub(crate) use self::shared_memory::pin_segment;
pub use self::usage::CudaUsage;
pub(crate) use self::usage::usage;
pub(crate) use self::worker::CudaWorker;
#[cfg(all(feature = "isolation", target_os = "linux"))]
use super::process::{ProcessConfig, ProcessStatus, ReportedUsage};
use super::worker_pool::{MemoryBudget, PoolHandle, PoolLoad, PoolStatus, Profile, RunFuture, WorkerPool};
pub use crate::cuda::CudaConfig;
use crate::cuda::{
    CudaError, Device, DeviceInfo, Gpu, HostArrays, Module, Peak, PinnedMemory, StreamExecutor, Unavailable,
};
use crate::service::{BackendKind, Job, KernelError, KernelResponse, OperandError};

/// One CUDA device as a backend.
///
/// Dropping the last handle, after the last future, waits until the workers have ended their calls of the driver, for at most
/// a second.
// The derived `Clone` starts without a permit, as that of `PoolHandle` does.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    handle: PoolHandle,
    runtime: Runtime,
}

/// The process that has the device open.
#[derive(Clone, Debug)]
enum Runtime {
    /// This one.
    Here(Arc<OpenDevice>),
    /// One of its own.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    Isolated(Arc<IsolatedDevice>),
}

/// What a small run takes: two uploads, a launch, a download and the wait for them (18 µs on an H200).
const LAUNCH: Duration = Duration::from_micros(18);

/// What a call to a device process adds to a small run.
#[cfg(all(feature = "isolation", target_os = "linux"))]
const CALL: Duration = Duration::from_micros(20);

impl CudaBackend {
    /// Opens the device with this ordinal, with the default configuration. This takes a few hundred milliseconds.
    ///
    /// # Errors
    /// Why the device is not available.
    pub fn open(ordinal: u32) -> Result<Self, Unavailable> {
        Self::with_config(ordinal, CudaConfig::default())
    }

    /// Opens the device with this ordinal. This takes a few hundred milliseconds.
    ///
    /// # Errors
    /// Why the device is not available.
    pub fn with_config(ordinal: u32, config: CudaConfig) -> Result<Self, Unavailable> {
        let (device, memory_budget) = Device::open(ordinal, &config, MemoryBudget::new)?;
        let device = Arc::new(device);
        // The device holds the budget.
        let weak = Arc::downgrade(&device);
        memory_budget.on_shortage(move || {
            if let Some(device) = weak.upgrade() {
                device.relieve_shortage();
            }
        });
        let profile = Profile { pinned_memory: Some(device.pinned.clone()), ..Self::profile(ordinal, &config) };
        let workers = |pool: &Arc<super::worker_pool::PoolState>| {
            let closing = Arc::clone(pool);
            device.health.on_lost(move |lost| closing.close(lost.clone().into()));
            let worker = |index| StreamExecutor::new(Arc::clone(&device), &config, index).map(CudaWorker::new);
            let workers: Result<Vec<_>, CudaError> = (0..config.workers.max(1)).map(worker).collect();
            workers.map_err(|error| KernelError::Device(error.to_string()))
        };
        let pool = WorkerPool::start(profile, config.queue, Some(Arc::clone(&memory_budget)), workers);
        let pool = pool.map_err(|error| Unavailable::Failed(error.to_string()))?;
        let weak = Arc::downgrade(&device);
        pool.on_missing_bytes(move |operand| match (weak.upgrade(), operand.host_arrays()) {
            (Some(device), Some(arrays)) => device.missing_bytes(arrays),
            _ => 0,
        });
        let open = OpenDevice::new(device, memory_budget, config);
        Ok(Self { handle: PoolHandle::new(Arc::new(pool)), runtime: Runtime::Here(Arc::new(open)) })
    }

    /// Has the device with this ordinal opened by a [process of its own](super::process), so that a fault of a kernel does
    /// not end the use of the device. This takes a second or so.
    ///
    /// Operands are copied to the device by the first request that needs them, whatever their
    /// [placement](crate::service::Placement).
    ///
    /// # Errors
    /// Why the device is not available.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn isolated(ordinal: u32, config: &CudaConfig, processes: &ProcessConfig) -> Result<Self, Unavailable> {
        // A response takes longer by the call to the other process.
        let busy_poll = config.busy_poll.saturating_add(CALL);
        let profile = Profile { isolated: true, busy_poll, ..Self::profile(ordinal, config) };
        let (device, pool) = IsolatedDevice::open(ordinal, config, processes, profile)?;
        Ok(Self { handle: PoolHandle::new(Arc::new(pool)), runtime: Runtime::Isolated(Arc::new(device)) })
    }

    fn profile(ordinal: u32, config: &CudaConfig) -> Profile {
        Profile {
            backend: BackendKind::Cuda,
            device: Some(ordinal),
            idle_spin: config.idle_spin,
            inline: config.inline,
            isolated: false,
            busy_poll: config.busy_poll,
            shutdown_grace: Duration::from_secs(1),
            launch: LAUNCH,
            // The PCIe bus bounds most requests.
            bytes_per_second: 20e9,
            operations_per_second: 5e12,
            pinned_memory: None,
        }
    }

    /// Returns the properties of the device.
    pub fn device(&self) -> &DeviceInfo {
        match &self.runtime {
            Runtime::Here(open) => &open.device.info,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => &device.info,
        }
    }

    /// Returns the device's peak bandwidth and throughput, if the driver knows its clocks.
    pub fn peak(&self) -> Option<Peak> {
        match &self.runtime {
            Runtime::Here(open) => open.device.peak,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => device.peak,
        }
    }

    /// Returns the device's sensors, if NVIDIA's management library is installed and knows the device.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.runtime {
            Runtime::Here(open) => open.device.gpu.as_ref(),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => device.gpu.as_ref(),
        }
    }

    /// Returns why the device is lost; `None` while it is not.
    pub fn lost(&self) -> Option<&KernelError> {
        self.handle.pool().state().closed()
    }

    pub(super) fn pool(&self) -> &Arc<WorkerPool> {
        self.handle.pool()
    }

    /// Returns the state of the device and its workers.
    pub fn status(&self) -> CudaStatus {
        let lost = self.lost().map(|lost| match lost {
            KernelError::DeviceLost { reason, .. } => format!("{lost}: {reason}"),
            other => other.to_string(),
        });
        let (usage, (modules_loaded, modules_loading)) = match &self.runtime {
            Runtime::Here(open) => (usage(&open.device, &open.memory_budget), open.device.module_counts()),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => {
                let ReportedUsage { usage, modules_loaded, modules_loading } = device.usage();
                (usage, (modules_loaded, modules_loading))
            }
        };
        CudaStatus {
            device: self.device().clone(),
            lost,
            pool: self.handle.pool().status(),
            usage,
            modules_loaded,
            modules_loading,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: self.processes(),
        }
    }

    /// Returns the state of the processes that have the device open; `None` if this process has.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn processes(&self) -> Option<ProcessStatus> {
        match &self.runtime {
            Runtime::Here(_) => None,
            Runtime::Isolated(device) => Some(device.processes.status()),
        }
    }

    /// Ends the [quarantine](super::process#quarantine) of a kernel, for all tenants. Returns whether it was in one.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn release_kernel(&self, id: &str) -> bool {
        match &self.runtime {
            Runtime::Here(_) => false,
            Runtime::Isolated(device) => device.processes.release(id),
        }
    }

    /// Has the standby take over, and a new one started, without losing a request. Returns whether there was a standby.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn replace_process(&self) -> bool {
        match &self.runtime {
            Runtime::Here(_) => false,
            Runtime::Isolated(device) => device.processes.switch(),
        }
    }

    /// Loads device code in the background: see [`Local::load_kernels`](crate::backends::Local::load_kernels). A device process
    /// does that by itself.
    pub(super) fn load(&self, modules: Vec<&'static Module>) {
        match &self.runtime {
            Runtime::Here(open) => {
                if let Err(error) = open.device.load_in_background(modules) {
                    tracing::warn!(%error, "no thread to load device code: the first requests load it");
                }
            }
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(_) => {}
        }
    }

    /// Makes copies of an operand that stay on the device, ahead of the requests on it. Nothing is evicted unless all of
    /// them fit. An isolated device makes them on demand.
    ///
    /// # Errors
    /// [`OperandError::OverBudget`] if there is no memory for them, and errors of the driver.
    fn place(&self, arrays: &HostArrays) -> Result<(), OperandError> {
        match &self.runtime {
            Runtime::Here(open) => open.place(arrays),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => {
                let device = device.info.ordinal;
                tracing::warn!(
                    device,
                    "an isolated device copies operands on demand: the first request on it waits for the copy"
                );
                Ok(())
            }
        }
    }

    /// Returns the device memory that copies of operands may still take, after the eviction of those that are idle and not
    /// pinned.
    fn free_operand_memory(&self) -> u64 {
        match &self.runtime {
            Runtime::Here(open) => open.free_operand_memory(),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(device) => {
                let usage = device.usage().usage;
                usage.operand_memory.saturating_sub(usage.operand_bytes)
            }
        }
    }

    /// Returns the pool of pinned memory, for typed inputs: an input in pinned memory is uploaded at the rate of the bus.
    /// Large results and decoded tensors are put there without further ado. `None` if the device is isolated.
    pub fn pinned_memory(&self) -> Option<&PinnedMemory> {
        match &self.runtime {
            Runtime::Here(open) => Some(&open.device.pinned),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            Runtime::Isolated(_) => None,
        }
    }
}

/// The state of a device and its workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct CudaStatus {
    /// The device.
    #[serde(flatten)]
    pub device: DeviceInfo,
    /// Why the device is lost; absent while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The workers, and the requests that run and wait.
    pub pool: PoolStatus,
    /// The memory in use.
    pub usage: CudaUsage,
    /// Modules of device code that are loaded, one or more for each kernel.
    pub modules_loaded: usize,
    /// Modules that are still to be loaded in the background.
    pub modules_loading: usize,
    /// The processes that have the device open; absent if the server's own process has.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessStatus>,
}

impl CudaStatus {
    /// Whether a standby runs the kernels.
    pub(crate) fn has_taken_over(&self) -> bool {
        #[cfg(all(feature = "isolation", target_os = "linux"))]
        return self.processes.as_ref().is_some_and(|processes| processes.replaced > 0);
        #[cfg(not(all(feature = "isolation", target_os = "linux")))]
        false
    }

    /// Describes what is wrong with the device, for people.
    pub(crate) fn problems(&self) -> Vec<String> {
        match &self.lost {
            Some(lost) => vec![lost.clone()],
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            None => {
                let name = format!("CUDA device {}", self.device.ordinal);
                self.processes.iter().flat_map(|processes| processes.problems(&name)).collect()
            }
            #[cfg(not(all(feature = "isolation", target_os = "linux")))]
            None => Vec::new(),
        }
    }
}

impl Service<Job> for CudaBackend {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = RunFuture;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), KernelError>> {
        self.handle.poll_reserve(cx)
    }

    fn call(&mut self, job: Job) -> RunFuture {
        RunFuture::new(&mut self.handle, job)
    }
}

impl Load for CudaBackend {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.handle.pool().load()
    }
}
