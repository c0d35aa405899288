//! [`Progress`]: the progress of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The progress of a run, which its kernel reports and any clone shows.
///
/// Insert it into the request's extensions. A run without one pays a branch for each step.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_kernels::service::KernelError> {
/// use tower::ServiceExt;
/// use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload, Progress};
///
/// let registry = KernelRegistry::new();
/// tower_kernels::kernels::register_all(&registry).unwrap();
/// let input = r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]]}"#;
/// let mut request = KernelRequest::new("graph/betweenness-centrality", Payload::json(input));
/// let progress = Progress::new();
/// request.extensions.insert(progress.clone());
///
/// KernelService::new(registry).oneshot(request).await?;
/// assert_eq!((progress.done(), progress.total()), (4, Some(4)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Progress {
    steps: Arc<Steps>,
}

/// Zero means unknown in all of them.
#[derive(Debug, Default)]
struct Steps {
    total: AtomicU64,
    done: AtomicU64,
    estimate_nanos: AtomicU64,
}

impl Progress {
    /// Creates the progress of a run that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of steps of the run. `None` until the kernel has reported it, which many kernels never do.
    pub fn total(&self) -> Option<u64> {
        Some(self.steps.total.load(Ordering::Relaxed)).filter(|&total| total != 0)
    }

    /// Returns the number of completed steps.
    pub fn done(&self) -> u64 {
        self.steps.done.load(Ordering::Relaxed)
    }

    /// Returns the estimated time of the run, from the kernel's cost estimate. `None` until the run has started.
    pub fn estimate(&self) -> Option<Duration> {
        Some(self.steps.estimate_nanos.load(Ordering::Relaxed)).filter(|&nanos| nanos != 0).map(Duration::from_nanos)
    }

    pub(super) fn set_total(&self, total: u64) {
        self.steps.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, steps: u64) {
        self.steps.done.fetch_add(steps, Ordering::Relaxed);
    }

    pub(super) fn set_estimate(&self, estimate: Duration) {
        let nanos = u64::try_from(estimate.as_nanos()).unwrap_or(u64::MAX);
        self.steps.estimate_nanos.store(nanos, Ordering::Relaxed);
    }
}
