use schemars::JsonSchema;
use serde::Serialize;

/// How many jobs a backend can hold, and how many it holds just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Whether it takes jobs at all: not once its device is lost or its threads have ended.
    pub up: bool,
    /// Jobs that run at one time.
    pub workers: usize,
    /// Workers that take jobs: as many as `lanes`, but for those that are being restarted after a panic.
    pub alive: usize,
    /// How often a worker was restarted because something other than a kernel had panicked on it.
    pub restarts: u64,
    /// Jobs that it holds at one time: those that run, and those that wait before the lanes.
    pub capacity: usize,
    /// Jobs that wait before the lanes, those among them that wait for memory of the device.
    pub queued: usize,
    /// The other jobs that hold a slot. They run; small ones do so on their caller's thread, so there may be more of them
    /// than lanes. A slot that a caller has reserved and not yet used counts as well.
    pub running: usize,
}
