//! Runs kernels on the host's processors.

use std::num::NonZero;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tower::load::Load;
use tower_service::Service;

use super::worker_pool::{Claim, PoolLoad, PoolStatus, Profile, RunFuture, Slot, Worker, WorkerPool};
use crate::service::{BackendKind, Encoding, Job, KernelError, KernelResponse, Payload, RunContext};

/// The host's processors as a backend.
///
/// A job that costs less than [`inline`](CpuConfig::inline) runs inside the call; a larger one on a lane, where its
/// kernel shares rayon's global pool with the others.
// `Slot`'s own `Clone` starts without a reservation.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    slot: Slot,
}

/// How a [`CpuBackend`] is laid out.
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuConfig {
    /// Jobs that run at one time. Default: one a processor.
    pub workers: usize,
    /// Jobs that wait at one time. Default: 64 a lane.
    pub queue: usize,
    /// What costs no more than this runs inside the call. Default: 20 µs, about what waking another thread and being
    /// woken by it costs (`benches/RESULTS.md` has the measurement).
    pub inline: Duration,
}

impl Default for CpuConfig {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { workers, queue: 64 * workers, inline: Duration::from_micros(20) }
    }
}

impl CpuBackend {
    /// The default layout.
    ///
    /// # Panics
    /// Where the operating system starts no thread.
    pub fn new() -> Self {
        Self::with_config(CpuConfig::default()).expect("a process that can start threads")
    }

    /// A layout of your choice; no lanes at all counts as one.
    ///
    /// # Errors
    /// Where the operating system starts no thread.
    pub fn with_config(config: CpuConfig) -> Result<Self, KernelError> {
        let profile = Profile {
            backend: BackendKind::Cpu,
            device: None,
            spin: Duration::ZERO,
            inline: config.inline,
            linger: Duration::ZERO,
            farewell: Duration::ZERO,
            bytes_per_second: 8e9,
            operations_per_second: 2e9,
        };
        let workers = |_: &_| Ok(std::iter::repeat_with(|| CpuWorker).take(config.workers.max(1)).collect());
        let lanes = WorkerPool::start(profile, config.queue, None, workers)?;
        Ok(Self { slot: Slot::new(Arc::new(lanes)) })
    }

    /// What runs and waits.
    pub fn status(&self) -> PoolStatus {
        self.slot.lanes().status()
    }
}

impl CpuBackend {
    pub(super) fn lanes(&self) -> &Arc<WorkerPool> {
        self.slot.lanes()
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

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), KernelError>> {
        self.slot.poll_reserve(cx)
    }

    fn call(&mut self, job: Job) -> RunFuture {
        RunFuture::new(&mut self.slot, job)
    }
}

impl Load for CpuBackend {
    type Metric = PoolLoad;

    fn load(&self) -> PoolLoad {
        self.slot.lanes().load()
    }
}

/// Runs a kernel on the thread it is on.
#[derive(Debug)]
pub(super) struct CpuWorker;

impl Worker for CpuWorker {
    fn run(
        &mut self,
        job: &Job,
        encoding: Encoding,
        context: &RunContext<'_>,
        _: Option<Claim>,
    ) -> Result<Payload, KernelError> {
        let input =
            job.input().ok_or_else(|| KernelError::Device("a job was run before it was prepared".to_owned()))?;
        job.kernel().run_cpu(input, encoding, context)
    }

    // A kernel has nothing of a worker's that it could leave broken.
    fn recover(&mut self) {}
}
