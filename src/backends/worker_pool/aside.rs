//! Looks after the jobs that a lane has set aside: their callers leave, their time runs out, their pool ends.
//!
//! A thread of its own, which never calls the driver, so that nothing holds it up. It sleeps while nobody waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::worker::not_started;
use super::{MemoryBudget, Profile, State, Task};
use crate::panics::catch_panic;
use crate::request::RequestContext;
use crate::service::{KernelError, RunContext};

/// How late a job that waits may learn of its end.
const INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn spawn(profile: &Profile, memory_budget: Arc<MemoryBudget>, state: Arc<State>) -> io::Result<()> {
    let name = profile.thread_name("aside");
    let look_after = {
        let name = name.clone();
        move || {
            while memory_budget.block_until_waiting() {
                for (task, reason) in memory_budget.remove_waiting(|task| in_vain(task, &state).err()) {
                    // What a request brings along is dropped with it, and may panic.
                    if let Err(panicked) = catch_panic(|| task.answer(Err(reason))) {
                        state.worker_panicked(&name, &panicked);
                    }
                }
                std::thread::sleep(INTERVAL);
            }
        }
    };
    std::thread::Builder::new().name(name).spawn(look_after).map(drop)
}

fn in_vain(task: &Task, state: &State) -> Result<(), KernelError> {
    match state.closed() {
        Some(reason) => Err(reason.clone()),
        None => not_started(&RunContext::new(Some(&task.reply), task.job.deadline())),
    }
}
