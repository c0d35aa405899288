//! A service whose kernels run in a device process, and requests to it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::process::ProcessConfig;
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, KernelService, Payload};

use crate::kernels::{Act, registry};

/// Within this everything that is awaited happens, on a busy machine as well.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Isolated {
    pub(crate) runtime: Runtime,
    pub(crate) backend: CpuBackend,
    pub(crate) service: KernelService<CpuBackend>,
}

impl Isolated {
    pub(crate) fn new(workers: usize) -> Self {
        Self::with(workers, ProcessConfig::default())
    }

    pub(crate) fn with(workers: usize, processes: ProcessConfig) -> Self {
        let config = CpuConfig { workers, queue: 1000, ..CpuConfig::default() };
        let backend = CpuBackend::isolated(&config, &processes).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let service = KernelService::with_backend(registry(), backend.clone());
        Self { runtime, backend, service }
    }

    pub(crate) fn call(
        &self,
        request: KernelRequest,
    ) -> impl Future<Output = Result<KernelResponse, KernelError>> + use<> {
        self.service.clone().oneshot(request)
    }

    /// Starts a request.
    pub(crate) fn start(&self, kernel: &'static str, act: Act) -> tokio::task::JoinHandle<Result<u32, KernelError>> {
        let response = self.call(KernelRequest::new(kernel, Payload::typed(act)));
        self.runtime.spawn(async move { Ok(*response.await?.payload.downcast::<u32>().unwrap()) })
    }

    /// Runs a request. Returns the id of the process that ran it.
    pub(crate) fn act(&self, act: Act) -> Result<u32, KernelError> {
        self.within(self.start("test/act", act)).unwrap()
    }

    pub(crate) fn within<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("it ends soon") })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.backend.processes().unwrap().pid
    }

    /// Waits until there is a process that runs jobs, and a standby.
    pub(crate) fn standby(&self) -> u32 {
        until(|| self.pid().is_some() && self.backend.processes().unwrap().standby_pid.is_some());
        self.backend.processes().unwrap().standby_pid.unwrap()
    }

    /// Waits until so many requests run.
    pub(crate) fn running(&self, count: usize) {
        until(|| self.backend.status().running == count);
    }
}

/// Waits until this holds.
#[track_caller]
pub(crate) fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "it does not come to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A folder of its own, which is removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-kernels-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a process runs, or is a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) fn kill(pid: u32) {
    // SAFETY: takes no pointers.
    assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGKILL) }, 0);
}
