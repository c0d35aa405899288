use std::time::Duration;

use crate::service::{BackendKind, Cost, Job, PinnedMemory};

/// The settings that all workers of a pool share.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) backend: BackendKind,
    /// The device's ordinal.
    pub(crate) device: Option<u32>,
    /// How long a worker without work spins before it sleeps.
    pub(crate) idle_spin: Duration,
    /// Jobs with an estimated run time up to this are decoded and, on the CPU, run on the calling thread.
    pub(crate) inline: Duration,
    /// Whether jobs run in another process, and so never on the calling thread.
    pub(crate) isolated: bool,
    /// How long the calling thread polls for the result of a job that is estimated to take no longer and is alone in the
    /// pool.
    pub(crate) busy_poll: Duration,
    /// How long dropping the pool waits for its workers to end. A driver must not be in use when the process exits, which
    /// often comes next.
    pub(crate) shutdown_grace: Duration,
    /// The time of a run without any data: launches, copies and waits.
    pub(crate) launch: Duration,
    /// Memory throughput of one worker, to turn a cost into a time.
    pub(crate) bytes_per_second: f64,
    /// Arithmetic throughput of one worker, to turn a cost into a time.
    pub(crate) operations_per_second: f64,
    /// Where large arrays that have to be copied are decoded to.
    pub(crate) pinned_memory: Option<PinnedMemory>,
}

impl Profile {
    /// Returns the time of moving and computing this much.
    pub(crate) fn time(&self, cost: Cost) -> Duration {
        cost.time(self.bytes_per_second, self.operations_per_second)
    }

    /// Predicts the run time of a decoded job, from its kernel's cost and from what the kernel's runs took here; `None` before
    /// it is decoded.
    pub(crate) fn predict(&self, job: &Job) -> Option<Duration> {
        let cost = job.cost()?;
        Some(job.kernel().run_times().predict(self.backend, cost, self.estimate(cost)))
    }

    /// Records what the run of a job took, for the predictions of others.
    pub(super) fn record(&self, job: &Job, took: Duration) {
        if let Some(cost) = job.cost() {
            job.kernel().run_times().record(self.backend, cost, self.estimate(cost), took);
        }
    }

    /// Returns whether a decoded job of this predicted run time runs on the calling thread.
    pub(crate) fn runs_inline(&self, job: &Job, predicted: Duration) -> bool {
        self.is_inline(predicted) && job.kernel().run_times().may_run_inline()
    }

    /// Records how long a run of this predicted time took, whether or not it succeeded.
    pub(super) fn record_length(&self, job: &Job, predicted: Duration, took: Duration) {
        if self.is_inline(predicted) {
            job.kernel().run_times().record_predicted_short(took);
        }
    }

    fn is_inline(&self, predicted: Duration) -> bool {
        self.backend == BackendKind::Cpu && !self.isolated && predicted <= self.inline
    }

    fn estimate(&self, cost: Cost) -> Duration {
        self.launch.saturating_add(self.time(cost))
    }

    /// Names a thread of the pool, such as `cuda0-worker-3`. Linux truncates names to 15 bytes.
    pub(super) fn thread_name(&self, role: &str) -> String {
        let device = self.device.map_or(String::new(), |device| device.to_string());
        format!("{}{device}-{role}", self.backend.as_str().to_lowercase())
    }
}
