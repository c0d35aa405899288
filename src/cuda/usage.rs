//! What a backend holds of the memory of its device and its host.

use schemars::JsonSchema;
use serde::Serialize;

/// How much memory a backend holds, and how often there was not enough. All in bytes but for what is counted.
///
/// It costs four short locks to read, and no call of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct CudaUsage {
    /// Device memory that requests may have at one time.
    pub device_capacity: u64,
    /// Device memory granted to requests that run or are about to.
    pub device_reserved: u64,
    /// Device memory that no request uses, kept for the next to come.
    pub device_idle: u64,
    /// Requests that wait for device memory now.
    pub waiting: usize,
    /// Requests that have had to wait for device memory.
    pub waits: u64,
    /// Requests that failed for want of device memory: they needed more than the capacity, or allocated more than was
    /// available while they ran.
    pub rejections: u64,
    /// Pinned host memory, in use or not; without the staging of lanes.
    pub pinned: u64,
    /// Pinned host memory in use: inputs that were copied into it, and outputs that somebody still holds.
    pub pinned_in_use: u64,
    /// Arrays that would have been put into pinned memory, had there been some left.
    pub pinned_fallbacks: u64,
}
