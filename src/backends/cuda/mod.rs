//! Runs kernels on an NVIDIA GPU.
//!
//! Nothing is needed to build it, and only the driver to run it: its library is loaded at run time, and kernels come as
//! machine code for compute capabilities 8.x, 9.x and 10.x and as PTX for all others from 7.5 on. [`devices`] says what there is, or why CUDA is off.
//!
//! A lane owns a stream, staging memory and an arena on the device, so that a request allocates nothing. A kernel's host
//! code sees its lane as a [`LaunchContext`]. While it waits for the device the lane polls, first without a pause and then with
//! short ones, and looks whether the caller is still there; a caller's leaving stops further launches, and running
//! kernels can poll [`LaunchContext::cancel_flag`]. The slot is free when the device is done with the work.
//!
//! A lane has a stream for each [`Priority`](crate::request::Priority), and a request's work goes to its own. Where blocks
//! of several requests wait for room on the device, those of the highest priority are next. Nothing that runs is stopped
//! for them, copies are served in the order they come, and before the lanes the queue knows no priority.
//!
//! The driver maps streams to connections, 8 unless the environment variable `CUDA_DEVICE_MAX_CONNECTIONS` says otherwise
//! (32 at most). Streams on one connection wait for each other, so a small request can wait for a long kernel of another
//! cuda. Set it to 32 before the process starts where there are long kernels and more than 8 streams: as many as lanes, for
//! each priority that is used.
//!
//! Some of the driver's calls wait for all that runs on the device: memory that goes back to the driver, a module's first
//! load. So a lane that grows its arena beyond what was needed before, or runs a kernel for the first time, can wait for
//! a long kernel of another cuda. In the steady state there are no such calls.
//!
//! The device itself measures how long one request in so many ([`CudaConfig::timing_sample_interval`]) was at its copies and its
//! kernels; the response has it as [`DeviceTimes`], beside what the kernel's own cost would
//! take at the device's [`Peak`]. [`Gpu`] reads its sensors, where NVIDIA's management library is there.
//!
//! A fault of running code (an illegal address, an assertion) takes the device away from the whole process: CUDA has no
//! way back. The backend then fails at once, with [`KernelError::DeviceLost`] to everybody. A device that does not stop
//! when it is told to, for longer than [`CudaConfig::hang_timeout`], is lost as well: nothing of it is freed then, because it may
//! still write to what it was given, and because the driver would wait for it.

mod devices;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tower::load::Load;
use tower_service::Service;

pub use self::devices::{CudaDevices, MissingDevice};
use super::worker_pool::{PoolHandle, PoolLoad, PoolStatus, Profile, Reservation, RunFuture, Worker, WorkerPool};
pub use crate::cuda::CudaConfig;
use crate::cuda::{CudaUsage, Device, DeviceInfo, Engine, Gpu, Peak, PinnedMemory, Unavailable};
#[cfg(doc)]
use crate::cuda::{LaunchContext, devices};
use crate::request::DeviceTimes;
use crate::service::{BackendKind, Job, KernelError, KernelResponse, Payload, RunContext};

/// One CUDA device as a backend.
///
/// Dropping the last handle and the last future waits until the lanes have left the driver, for a second at most.
// `PoolHandle`'s own `Clone` starts without a reservation.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    handle: PoolHandle,
    device: Arc<Device>,
}

impl CudaBackend {
    /// The device of this number, in the default layout. It takes a few hundred milliseconds.
    ///
    /// # Errors
    /// Why there is no such device.
    pub fn open(ordinal: u32) -> Result<Self, Unavailable> {
        Self::with_config(ordinal, CudaConfig::default())
    }

    /// The device of this number, in a layout of your choice; no lanes at all counts as one.
    ///
    /// # Errors
    /// Why there is no such device.
    pub fn with_config(ordinal: u32, config: CudaConfig) -> Result<Self, Unavailable> {
        let device = Arc::new(Device::open(ordinal, &config)?);
        let profile = Profile {
            backend: BackendKind::Cuda,
            device: Some(ordinal),
            idle_spin: config.idle_spin,
            inline: config.inline,
            busy_poll: config.busy_poll,
            shutdown_grace: Duration::from_secs(1),
            // PCIe is what most requests wait for.
            bytes_per_second: 20e9,
            operations_per_second: 5e12,
        };
        let workers = |pool: &Arc<super::worker_pool::PoolState>| {
            let engine = |lane| Engine::new(Arc::clone(&device), Arc::clone(pool), &config, lane);
            let workers: Result<Vec<_>, _> =
                (0..config.workers.max(1)).map(engine).map(|engine| engine.map(CudaWorker::new)).collect();
            workers.map_err(|failure| KernelError::Device(failure.text(device.driver)))
        };
        let lanes = WorkerPool::start(profile, config.queue, Some(Arc::clone(&device.memory_budget)), workers);
        let lanes = lanes.map_err(|error| Unavailable::Failed(error.to_string()))?;
        Ok(Self { handle: PoolHandle::new(Arc::new(lanes)), device })
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.device.info
    }

    /// What the device could move and compute in a second at most, where the driver tells its clocks.
    pub fn peak(&self) -> Option<Peak> {
        self.device.peak
    }

    /// The device's own sensors, where NVIDIA's management library is there and knows it.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.device.gpu.as_ref()
    }

    /// Why the device is of no use any more; `None` while it is.
    pub fn lost(&self) -> Option<&KernelError> {
        self.handle.pool().state().closed()
    }

    pub(super) fn pool(&self) -> &Arc<WorkerPool> {
        self.handle.pool()
    }

    /// The device and how it is.
    pub fn status(&self) -> CudaStatus {
        let lost = self.lost().map(|lost| match lost {
            KernelError::DeviceLost { reason, .. } => format!("{lost}: {reason}"),
            other => other.to_string(),
        });
        CudaStatus {
            device: self.device().clone(),
            lost,
            pool: self.handle.pool().status(),
            usage: self.device.usage(),
        }
    }

    /// The pool of pinned memory, for callers that pass typed inputs: an input that lies there is uploaded at the speed of
    /// the bus. Large results and decoded inputs are put there anyway.
    pub fn pinned_memory(&self) -> &PinnedMemory {
        &self.device.pinned
    }
}

/// A device and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct CudaStatus {
    /// The device.
    #[serde(flatten)]
    pub device: DeviceInfo,
    /// Why it is of no use any more; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// What runs and waits there.
    pub pool: PoolStatus,
    /// What it holds of the memory.
    pub usage: CudaUsage,
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

struct CudaWorker(ManuallyDrop<Engine>);

impl CudaWorker {
    fn new(engine: Engine) -> Self {
        Self(ManuallyDrop::new(engine))
    }
}

/// A device that hangs may still write to the memory it was given, and calls that free it would wait for the device. So
/// what its lanes own stays until the process ends, and so does the device, which each of them holds.
impl Drop for CudaWorker {
    fn drop(&mut self) {
        if !self.0.device.hangs() {
            // SAFETY: once, and nobody uses it after this.
            #[allow(unsafe_code)]
            unsafe {
                ManuallyDrop::drop(&mut self.0)
            };
        }
    }
}

impl Worker for CudaWorker {
    fn run(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        reservation: Option<Reservation>,
    ) -> Result<Payload, KernelError> {
        crate::cuda::run(&mut self.0, job, job.encoding(), context, reservation)
    }

    fn needs(&self, job: &Job) -> u64 {
        job.cost().map_or(0, |cost| self.0.needs(cost.device_memory))
    }

    fn pinned_memory(&self) -> Option<&PinnedMemory> {
        Some(&self.0.device.pinned)
    }

    fn take_times(&mut self, job: &Job) -> Option<Box<DeviceTimes>> {
        self.0.take_times(job.cost())
    }

    fn recover(&mut self) {
        let engine = &mut *self.0;
        engine.stream.raise_cancel();
        if let Err(failure) = engine.end(&RunContext::detached()) {
            // Ends the pool where the device is lost; the caller learns of its panic all the same.
            engine.error(failure);
        }
    }
}
