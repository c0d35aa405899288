//! [`CpuBackend`]: runs kernels on the host's processors.

use std::num::NonZero;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::load::Load;
use tower_service::Service;

#[cfg(all(feature = "isolation", target_os = "linux"))]
use super::process::{ProcessConfig, ProcessStatus, Processes, Setup};
use super::worker_pool::{PoolHandle, PoolLoad, PoolStatus, Profile, Reservation, RunFuture, Worker, WorkerPool};
use crate::service::{BackendKind, Job, KernelError, KernelResponse, RunContext, Typed};

/// Runs jobs on the host's processors.
///
/// A job with an estimated run time of at most [`inline`](CpuConfig::inline) runs on the calling thread; any other runs on a
/// worker thread, where kernels share rayon's global pool.
// The derived `Clone` starts without a permit, as that of `PoolHandle` does.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    handle: PoolHandle,
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    processes: Option<Arc<Processes>>,
}

/// The settings of a [`CpuBackend`].
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuConfig {
    /// Worker threads, each of which runs one job at a time. Default: one for each processor.
    pub workers: usize,
    /// Jobs that wait in the queue at one time. Default: 64 for each worker.
    pub queue: usize,
    /// Jobs with an estimated run time up to this run on the calling thread. Default: 20 µs, which is about what a hop to
    /// another thread and back costs (measured in `benches/RESULTS.md`). If one of them takes longer than a millisecond, the
    /// next 64 such jobs of its kernel run on worker threads.
    pub inline: Duration,
}

impl Default for CpuConfig {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { workers, queue: 64 * workers, inline: Duration::from_micros(20) }
    }
}

impl CpuBackend {
    /// Creates a backend with the default settings.
    ///
    /// # Panics
    /// If the operating system cannot start a thread.
    pub fn new() -> Self {
        Self::with_config(CpuConfig::default()).expect("a process that can start threads")
    }

    /// Creates a backend with these settings. Zero workers count as one.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn with_config(config: CpuConfig) -> Result<Self, KernelError> {
        let profile = Self::profile(&config);
        let workers = |_: &_| Ok(std::iter::repeat_with(|| CpuWorker).take(config.workers.max(1)).collect());
        let pool = WorkerPool::start(profile, config.queue, None, workers)?;
        Ok(Self {
            handle: PoolHandle::new(Arc::new(pool)),
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        })
    }

    fn profile(config: &CpuConfig) -> Profile {
        Profile {
            backend: BackendKind::Cpu,
            device: None,
            idle_spin: Duration::ZERO,
            inline: config.inline,
            isolated: false,
            busy_poll: Duration::ZERO,
            shutdown_grace: Duration::ZERO,
            launch: Duration::ZERO,
            bytes_per_second: 8e9,
            operations_per_second: 2e9,
            pinned_memory: None,
        }
    }

    /// Creates a backend whose kernels run in a [process of their own](super::process). No job runs on the calling thread.
    ///
    /// # Errors
    /// If the process does not start, or the operating system cannot start a thread.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn isolated(config: &CpuConfig, processes: &ProcessConfig) -> Result<Self, KernelError> {
        let profile = Profile { isolated: true, ..Self::profile(config) };
        let (processes, pool) = Processes::start_pool(processes, Setup::cpu(), config.workers, config.queue, profile)
            .map_err(KernelError::Device)?;
        Ok(Self { handle: PoolHandle::new(Arc::new(pool)), processes: Some(Arc::new(processes)) })
    }

    /// Returns the state of the processes that run the kernels; `None` if they run in this process.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn processes(&self) -> Option<ProcessStatus> {
        self.processes.as_ref().map(|processes| processes.status())
    }

    /// Ends the [quarantine](super::process#quarantine) of a kernel, for all tenants. Returns whether it was in one.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn release_kernel(&self, id: &str) -> bool {
        self.processes.as_ref().is_some_and(|processes| processes.release(id))
    }

    /// Has the standby take over, and a new one started, without losing a request: after an upgrade of a driver or a file
    /// that the process has open, say. Returns whether there was a standby.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn replace_process(&self) -> bool {
        self.processes.as_ref().is_some_and(|processes| processes.switch())
    }

    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(super) fn shared_processes(&self) -> Option<&Arc<Processes>> {
        self.processes.as_ref()
    }

    /// Returns a snapshot of the queued and running jobs.
    pub fn status(&self) -> PoolStatus {
        self.handle.pool().status()
    }

    pub(super) fn pool(&self) -> &Arc<WorkerPool> {
        self.handle.pool()
    }
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Job> for CpuBackend {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = RunFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        self.handle.poll_reserve(cx)
    }

    fn call(&mut self, job: Job) -> RunFuture {
        RunFuture::new(&mut self.handle, job)
    }
}

impl Load for CpuBackend {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.handle.pool().load()
    }
}

/// Runs kernels on its own thread.
#[derive(Debug)]
pub(super) struct CpuWorker;

impl Worker for CpuWorker {
    fn run(&mut self, job: &Job, context: &RunContext<'_>, _: Option<Reservation>) -> Result<Typed, KernelError> {
        job.run_kernel_on_cpu(context)
    }

    // There is no state that a panic could have left broken.
    fn recover(&mut self) {}
}
