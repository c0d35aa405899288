//! [`CancelCheck`]: checks for cancellation in long loops, without checking at each step.

use crate::service::{KernelError, RunContext};

/// Arcs visited between two checks: well under a millisecond.
pub(super) const INTERVAL: usize = 1 << 15;

/// Checks the context of a run after every [`INTERVAL`] units of work.
pub(super) struct CancelCheck<'a> {
    until_check: usize,
    context: &'a RunContext<'a>,
}

impl<'a> CancelCheck<'a> {
    pub(super) fn new(context: &'a RunContext<'a>) -> Self {
        Self { until_check: 0, context }
    }

    /// Counts some work, and checks where it is time to.
    #[inline]
    pub(super) fn spend(&mut self, work: usize) -> Result<(), KernelError> {
        if work < self.until_check {
            self.until_check -= work;
            return Ok(());
        }
        self.check()
    }

    /// Checks now.
    pub(super) fn check(&mut self) -> Result<(), KernelError> {
        self.until_check = INTERVAL;
        self.context.check()
    }
}
