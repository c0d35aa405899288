use schemars::JsonSchema;
use serde::Serialize;

/// The capacity and occupancy of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Whether the backend accepts jobs; `false` once its device is lost or its threads have ended.
    pub up: bool,
    /// Worker threads, each of which runs one job at a time.
    pub workers: usize,
    /// Workers that take jobs; those restarting after a panic do not.
    pub alive: usize,
    /// Restarts of workers after a panic outside of the kernels.
    pub restarts: u64,
    /// Jobs that the backend accepts at one time, running and queued.
    pub capacity: usize,
    /// Jobs that wait in the queue or for device memory.
    pub queued: usize,
    /// Jobs that hold a permit and are not queued. Small jobs run on the caller's thread, so there may be more of them than
    /// workers. A permit that a service has reserved and not used yet counts as well.
    pub running: usize,
}
