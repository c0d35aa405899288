use std::fmt;
use std::time::{Duration, Instant};

use super::{HostReservation, KernelError, Progress};

/// The context of a running kernel: the cancellation, deadline and progress of its request.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    is_cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
    deadline: Option<Instant>,
    progress: Option<&'a Progress>,
    memory: Option<&'a HostReservation>,
}

impl<'a> RunContext<'a> {
    /// Creates the context of a run that cannot be cancelled and has no deadline.
    pub const fn detached() -> Self {
        Self::new(None, None)
    }

    /// Creates a context that is cancelled once `is_cancelled` returns `true` or `deadline` has passed.
    pub(crate) const fn new(is_cancelled: Option<&'a (dyn Fn() -> bool + Sync)>, deadline: Option<Instant>) -> Self {
        Self { is_cancelled, deadline, progress: None, memory: None }
    }

    /// Reports steps and the estimate to `progress`.
    pub(crate) const fn with_progress(mut self, progress: Option<&'a Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Replaces the deadline, for one of several requests that share the run.
    pub(crate) const fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Charges the host memory that the run takes to the request's reservation.
    pub(crate) const fn with_memory(mut self, memory: Option<&'a HostReservation>) -> Self {
        self.memory = memory;
        self
    }

    /// Returns the request's reservation of host memory.
    pub(crate) fn memory(&self) -> Option<&'a HostReservation> {
        self.memory
    }

    /// Tries to reserve `bytes` of host memory beyond the kernel's [footprint](super::Kernel::footprint).
    ///
    /// It is meant for memory that makes the run faster and that the run can do without. Returns `false` where the
    /// memory is not available. The reservation ends with the run.
    pub fn try_reserve(&self, bytes: u64) -> bool {
        self.memory.is_none_or(|memory| memory.try_grow(bytes))
    }

    /// Sets the number of steps of the run, as shown by the request's [`Progress`].
    pub fn set_steps(&self, total: u64) {
        if let Some(progress) = self.progress {
            progress.set_total(total);
        }
    }

    /// Adds completed steps to the request's [`Progress`]. Any thread of the run may call it.
    #[inline]
    pub fn advance(&self, steps: u64) {
        if let Some(progress) = self.progress {
            progress.advance(steps);
        }
    }

    pub(crate) fn set_estimate(&self, estimate: impl FnOnce() -> Duration) {
        if let Some(progress) = self.progress {
            progress.set_estimate(estimate());
        }
    }

    /// Returns the deadline of the request.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Checks whether the run should go on. It reads the clock if there is a deadline, which takes about 25 ns.
    ///
    /// # Errors
    /// [`KernelError::Cancelled`] once the response future was dropped, and [`KernelError::DeadlineExceeded`] once the
    /// deadline has passed.
    pub fn check(&self) -> Result<(), KernelError> {
        if self.is_cancelled.is_some_and(|is_cancelled| is_cancelled()) {
            return Err(KernelError::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(KernelError::DeadlineExceeded { started: true }),
            _ => Ok(()),
        }
    }

    /// Checks whether the run should start: as [`check`](Self::check), for work that has not begun.
    pub(crate) fn check_before_start(&self) -> Result<(), KernelError> {
        match self.check() {
            Err(KernelError::DeadlineExceeded { .. }) => Err(KernelError::DeadlineExceeded { started: false }),
            other => other,
        }
    }
}

impl fmt::Debug for RunContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext")
            .field("deadline", &self.deadline)
            .field("progress", &self.progress)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
