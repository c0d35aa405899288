//! [`Processes`]: the process that runs jobs, the one that stands by, and the one that runs suspects alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::config::ProcessConfig;
use super::device_process::Process;
use super::faults::Faults;
use super::message::{Report, Setup};
use super::report::LastRuns;
use super::status::ProcessStatus;
use super::worker::ProcessWorker;
use crate::backends::worker_pool::{PoolState, Profile, WorkerPool};
use crate::copy::CopyThreads;
use crate::error::chain;
use crate::process::{Child, ChildConfig, Control, Limits, Spawned};
use crate::request::BackendKind;
use crate::service::{KernelError, RunContext};

/// Starts of a process that fail one after the other before the device is given up.
const MAX_FAILED_STARTS: u32 = 5;
/// The pause after a failed start, which doubles with each.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// How often a worker that waits for a process checks its request.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The processes of one device. Dropped, they end.
pub(crate) struct Processes {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    config: ProcessConfig,
    setup: Setup,
    workers: usize,
    /// They copy for all processes.
    copy_threads: CopyThreads,
    pub(super) faults: Faults,
    pub(super) last_runs: LastRuns,
    state: Mutex<State>,
    /// Notified when a process is ready, is lost or cannot be started.
    changed: Condvar,
    /// The process that runs suspects, each alone. Locked for as long as one runs.
    solitary: Mutex<Option<Arc<Process>>>,
    /// Jobs that wait to run alone. The last of them ends the process.
    suspects: AtomicUsize,
    /// Told when no process can be started.
    on_lost: Box<dyn Fn(KernelError) + Send + Sync>,
    /// What the device is.
    device: OnceLock<serde_json::Value>,
    replaced: AtomicU64,
}

#[derive(Default)]
struct State {
    active: Option<Arc<Process>>,
    standby: Option<Arc<Process>>,
    /// Why the device was given up.
    lost: Option<KernelError>,
    closed: bool,
}

impl Processes {
    /// Starts a process, which has a partner for each of `workers`, and then in the background one that stands by.
    ///
    /// # Errors
    /// Why the process did not start or its device is not available.
    pub(super) fn start(
        config: &ProcessConfig,
        setup: Setup,
        workers: usize,
        on_lost: impl Fn(KernelError) + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            faults: Faults::new(config.max_faults, config.quarantine),
            last_runs: LastRuns::default(),
            config: config.clone(),
            copy_threads: CopyThreads::start("process", setup.copy_threads)
                .map_err(|error| format!("a thread did not start: {error}"))?,
            setup,
            workers,
            state: Mutex::default(),
            changed: Condvar::new(),
            solitary: Mutex::default(),
            suspects: AtomicUsize::new(0),
            on_lost: Box::new(on_lost),
            device: OnceLock::new(),
            replaced: AtomicU64::new(0),
        });
        let first = shared.start_process(shared.workers)?;
        shared.state.lock().active = Some(first);
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("processes".to_owned())
            .spawn(move || supervise(&weak))
            .map_err(|error| format!("a thread did not start: {error}"))?;
        Ok(Self { shared })
    }

    /// Returns the state of the processes.
    pub(crate) fn status(&self) -> ProcessStatus {
        ProcessStatus::of(&self.shared)
    }

    /// Starts processes, and a pool whose workers run their jobs there. The pool closes if no process can be started any more.
    ///
    /// # Errors
    /// Why the process did not start or its device is not available, in the words that are said without isolation.
    pub(crate) fn start_pool(
        config: &ProcessConfig,
        setup: Setup,
        workers: usize,
        queue: usize,
        profile: Profile,
    ) -> Result<(Self, WorkerPool), String> {
        let workers = workers.max(1);
        let closing: Arc<OnceLock<Arc<PoolState>>> = Arc::default();
        let closes = Arc::clone(&closing);
        let on_lost = move |lost: KernelError| {
            if let Some(pool) = closes.get() {
                pool.close(lost);
            }
        };
        let processes = Self::start(config, setup, workers, on_lost)?;
        let shared = &processes.shared;
        let pool = WorkerPool::start(profile, queue, None, |pool| {
            let _ = closing.set(Arc::clone(pool));
            Ok((0..workers).map(|index| ProcessWorker::new(Arc::clone(shared), index)).collect())
        });
        let pool = pool.map_err(|error| chain(&error).to_string())?;
        let shared = Arc::downgrade(shared);
        pool.on_first_job(move || {
            if let Some(shared) = shared.upgrade() {
                shared.wake();
            }
        });
        Ok((processes, pool))
    }

    /// Returns what the device is, as its process reports it.
    pub(crate) fn device(&self) -> serde_json::Value {
        self.shared.device.get().cloned().unwrap_or_default()
    }

    /// Returns what the process that runs jobs last said of its memory; null before it has.
    pub(crate) fn usage(&self) -> serde_json::Value {
        let active = self.shared.state.lock().active.clone();
        active.map(|active| active.usage()).unwrap_or_default()
    }

    /// Ends the quarantine of a kernel, for all tenants. Returns whether it was in one.
    pub(crate) fn release(&self, kernel: &str) -> bool {
        self.shared.faults.release(kernel)
    }

    /// Has the standby take over. Returns whether there was one.
    pub(crate) fn switch(&self) -> bool {
        self.shared.switch()
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let (active, standby) = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            (state.active.take(), state.standby.take())
        };
        self.shared.changed.notify_all();
        // They end when their last handle is dropped: a worker may still have one.
        drop((active, standby));
    }
}

/// Keeps a process running and another one standing by.
fn supervise(shared: &Weak<Shared>) {
    let mut failed = 0;
    loop {
        // Not kept while it waits, so that the processes end with their last owner.
        let Some(shared) = shared.upgrade() else { return };
        if !shared.wait_until_needed() {
            if shared.state.lock().closed {
                return;
            }
            continue;
        }
        match shared.start_process(shared.workers) {
            Ok(process) => {
                failed = 0;
                shared.add(process);
            }
            Err(reason) => {
                failed += 1;
                tracing::error!(reason, failed, "a device process did not start");
                let mut state = shared.state.lock();
                if failed >= MAX_FAILED_STARTS && state.active.is_none() {
                    let lost = KernelError::DeviceLost { device: shared.device_name().into(), reason: reason.into() };
                    state.lost = Some(lost.clone());
                    drop(state);
                    (shared.on_lost)(lost);
                    shared.changed.notify_all();
                    return;
                }
                shared.changed.wait_for(&mut state, MIN_PAUSE * 2_u32.pow(failed.min(6)));
            }
        }
    }
}

impl Shared {
    /// Waits for a moment until a process is missing. Returns whether one is.
    fn wait_until_needed(&self) -> bool {
        let mut state = self.state.lock();
        let is_needed = |state: &State| {
            !state.closed && (state.active.is_none() || (self.config.standby && state.standby.is_none()))
        };
        if !is_needed(&state) && !state.closed {
            self.changed.wait_for(&mut state, Duration::from_secs(1));
        }
        is_needed(&state)
    }

    fn add(&self, process: Arc<Process>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        match &mut state.active {
            None => state.active = Some(process),
            Some(_) => state.standby = Some(process),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Starts a process and waits until it is ready.
    fn start_process(self: &Arc<Self>, mailboxes: usize) -> Result<Arc<Process>, String> {
        let role = rmp_serde::to_vec_named(&self.setup).map_err(|error| error.to_string())?;
        let config = ChildConfig {
            args: self.config.args.clone(),
            env: Vec::new(),
            env_remove: self.config.env_remove.clone(),
            role,
            mailboxes,
            spin: self.config.spin,
            shared_memory: self.config.shared_memory,
            copy_threads: self.copy_threads.clone(),
            limits: Limits { local_sockets: self.setup.backend == BackendKind::Cuda, ..Limits::default() },
        };
        let Spawned { child, callers, control } = Child::spawn(&config).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + self.config.start_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (bytes, _) = control.recv(Some(left)).map_err(|error| match child.exit() {
                Some(exit) => format!("it ended with {exit} before it was ready"),
                None => format!("it was not ready in time: {error}"),
            })?;
            match rmp_serde::from_slice(&bytes).map_err(|error| format!("it sent nonsense: {error}"))? {
                Report::Ready(device) => {
                    let _ = self.device.set(device);
                    break;
                }
                Report::Failed(reason) => return Err(reason),
                Report::Fault(reason) => return Err(format!("it faulted: {reason}")),
                Report::Usage(_) => {}
            }
        }
        let process = Arc::new(Process::new(child, callers));
        self.watch(&process, control)?;
        Ok(process)
    }

    /// Reads what a process reports, and has it replaced when it ends.
    fn watch(self: &Arc<Self>, process: &Arc<Process>, control: Control) -> Result<(), String> {
        let of = Arc::downgrade(process);
        let read = move || {
            while let Ok((bytes, _)) = control.recv(None) {
                let Some(process) = of.upgrade() else { return };
                match rmp_serde::from_slice(&bytes) {
                    Ok(Report::Fault(reason)) => process.has_faulted(reason),
                    Ok(Report::Usage(usage)) => process.set_usage(usage),
                    Ok(Report::Ready(_) | Report::Failed(_)) | Err(_) => {
                        process.kill_corrupt("it sent a report that made no sense".to_owned());
                    }
                }
            }
            if let Some(process) = of.upgrade() {
                process.has_fallen_silent();
            }
        };
        let started = std::thread::Builder::new().name("process-reports".to_owned()).spawn(read);
        started.map_err(|error| format!("a thread did not start: {error}"))?;
        let (shared, of) = (Arc::downgrade(self), Arc::downgrade(process));
        process.on_exit(move || {
            if let (Some(shared), Some(process)) = (shared.upgrade(), of.upgrade()) {
                shared.replace(&process);
            }
        });
        Ok(())
    }

    /// Takes a process that has ended out of use; the standby takes over.
    pub(super) fn replace(&self, process: &Arc<Process>) {
        let mut state = self.state.lock();
        let is = |held: &Option<Arc<Process>>| held.as_ref().is_some_and(|held| Arc::ptr_eq(held, process));
        if is(&state.active) {
            state.active = state.standby.take();
            self.replaced.fetch_add(1, Ordering::Relaxed);
        } else if is(&state.standby) {
            state.standby = None;
        } else {
            return;
        }
        drop(state);
        self.changed.notify_all();
        let (device, pid) = (self.device_name(), process.pid());
        let exit = process.exit().map(tracing::field::display);
        tracing::warn!(device, pid, exit, "a device process has ended, and is replaced");
    }

    /// Returns the process that runs jobs, and waits for one while there is none.
    ///
    /// # Errors
    /// That the job is to end, or the device was given up.
    pub(super) fn active(&self, context: &RunContext<'_>) -> Result<Arc<Process>, KernelError> {
        let mut state = self.state.lock();
        loop {
            if let Some(process) = &state.active {
                return Ok(Arc::clone(process));
            }
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            if state.closed {
                return Err(KernelError::Stopped { backend: self.setup.backend.as_str() });
            }
            context.check_before_start()?;
            self.changed.wait_for(&mut state, CHECK_INTERVAL);
        }
    }

    /// Has a partner in the process that runs jobs poll for one: so it wakes at the same time as the worker here.
    fn wake(&self) {
        let active = self.state.lock().active.clone();
        if let Some(active) = active {
            active.wake();
        }
    }

    /// Runs one job alone, in a process that has no other.
    pub(super) fn run_alone<R>(
        self: &Arc<Self>,
        context: &RunContext<'_>,
        run: impl FnOnce(&Arc<Process>) -> R,
    ) -> Result<R, KernelError> {
        let waiting = Suspect::new(self);
        let mut solitary = waiting.lock(context)?;
        let process = match solitary.take().filter(|process| process.exit().is_none()) {
            Some(process) => process,
            None => self.start_process(1).map_err(|reason| KernelError::DeviceLost {
                device: self.device_name().into(),
                reason: reason.into(),
            })?,
        };
        let result = run(&process);
        *solitary = Some(process);
        Ok(result)
    }

    /// What the device is; `None` for the CPU.
    pub(super) fn device_info(&self) -> Option<&serde_json::Value> {
        self.device.get().filter(|device| !device.is_null())
    }

    pub(super) fn config(&self) -> &ProcessConfig {
        &self.config
    }

    /// Ends the process that runs jobs if it does not have the mailbox of a worker that has no call, which a panic has lost.
    pub(super) fn end_without_mailbox(&self, worker: usize) {
        if let Some(active) = &self.state.lock().active
            && !active.has_caller(worker)
        {
            active.kill_corrupt("its mailbox was lost with a panic of the worker".to_owned());
        }
    }

    /// Names the device for errors, such as `CUDA 0`.
    pub(super) fn device_name(&self) -> String {
        let Setup { backend, ordinal, .. } = self.setup;
        match backend {
            BackendKind::Cpu => backend.to_string(),
            _ => format!("{backend} {ordinal}"),
        }
    }

    /// Returns how many processes have ended and were replaced.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Returns the process ids of the process that runs jobs and of the standby.
    pub(super) fn pids(&self) -> (Option<u32>, Option<u32>) {
        let state = self.state.lock();
        let pid = |process: &Option<Arc<Process>>| process.as_ref().map(|process| process.pid());
        (pid(&state.active), pid(&state.standby))
    }

    /// Has the standby take over. The process that ran jobs ends when its runs have ended. Returns whether there was a standby.
    pub(super) fn switch(&self) -> bool {
        let mut state = self.state.lock();
        let Some(standby) = state.standby.take() else { return false };
        let old = state.active.replace(standby);
        drop(state);
        self.changed.notify_all();
        self.replaced.fetch_add(1, Ordering::Relaxed);
        drop(old);
        true
    }
}

/// A job that is to run alone.
struct Suspect<'a>(&'a Shared);

impl<'a> Suspect<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.suspects.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// Waits for its turn.
    fn lock(&self, context: &RunContext<'_>) -> Result<MutexGuard<'a, Option<Arc<Process>>>, KernelError> {
        loop {
            context.check_before_start()?;
            if let Some(solitary) = self.0.solitary.try_lock_for(CHECK_INTERVAL) {
                return Ok(solitary);
            }
        }
    }
}

/// The last one ends the process, which has a context of the device open.
impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        if self.0.suspects.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(mut solitary) = self.0.solitary.try_lock()
        {
            *solitary = None;
        }
    }
}
