//! Fails the jobs that wait for device memory once they are cancelled, past their deadline, or their pool closes, and has
//! memory freed for the others.
//!
//! It has a thread of its own that never calls the driver, so that nothing blocks it. It sleeps while no job waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{MemoryBudget, PoolState, Profile, Task};
use crate::panics::catch_panic;
use crate::request::RequestContext;
use crate::service::{KernelError, RunContext};

/// How often the waiting jobs are checked.
const INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn spawn(profile: &Profile, memory_budget: Arc<MemoryBudget>, state: Arc<PoolState>) -> io::Result<()> {
    let name = profile.thread_name("reaper");
    let reap = {
        let name = name.clone();
        move || {
            while memory_budget.block_until_waiting() {
                for (task, reason) in memory_budget.remove_waiting(|task| rejection(task, &state)) {
                    // The request's own values are dropped here as well, and their drop may panic.
                    if let Err(panicked) = catch_panic(|| task.complete(Err(reason))) {
                        state.worker_panicked(&name, &panicked);
                    }
                }
                // Again and again, as memory that is in use now may be idle later.
                memory_budget.relieve_shortage();
                std::thread::sleep(INTERVAL);
            }
        }
    };
    std::thread::Builder::new().name(name).spawn(reap).map(drop)
}

/// Returns the error of a task that need not wait any longer.
fn rejection(task: &Task, state: &PoolState) -> Option<KernelError> {
    if let Some(reason) = state.closed() {
        return Some(reason.clone());
    }
    let is_cancelled = || task.response.is_closed();
    RunContext::new(Some(&is_cancelled), task.job.deadline()).check_before_start().err()
}
