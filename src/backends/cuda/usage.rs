//! [`CudaUsage`]: the device and host memory that a backend uses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backends::worker_pool::memory_budget::MemoryBudget;
use crate::cuda::Device;

/// The device and host memory that a backend uses, in bytes, and how often there was not enough.
///
/// Reading it takes five short locks and no call of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct CudaUsage {
    /// Device memory that requests may use at one time.
    pub device_capacity: u64,
    /// Device memory that is reserved for requests which run or are about to, and for copies of operands.
    pub device_reserved: u64,
    /// Device memory that no request uses, kept for the next.
    pub device_idle: u64,
    /// Requests that wait for device memory now.
    pub waiting: usize,
    /// Requests that have had to wait for device memory.
    pub waits: u64,
    /// Requests that failed for want of device memory: they needed more than the capacity, or allocated more than was
    /// available while they ran.
    pub rejections: u64,
    /// Pinned host memory in use or idle, without the workers' staging memory.
    pub pinned: u64,
    /// Pinned host memory in use, by inputs that were copied to it and outputs that have not been dropped.
    pub pinned_in_use: u64,
    /// Arrays that were not put into pinned memory because the limit was reached or pages could not be pinned.
    pub pinned_fallbacks: u64,
    /// Device memory that copies of operands may take: [`CudaConfig::operand_memory`](crate::cuda::CudaConfig).
    pub operand_memory: u64,
    /// Device memory that copies of operands take.
    pub operand_bytes: u64,
    /// Copies of operands: one for each large array, and one for every 2 MiB of small ones.
    pub operand_copies: usize,
    /// Inputs of requests that found a copy.
    pub operand_hits: u64,
    /// Copies that were made because a request or a placement needed them.
    pub operand_misses: u64,
    /// Copies that were evicted to make room for others or for requests.
    pub operand_evictions: u64,
    /// Inputs that requests uploaded for themselves because there was no memory for a copy.
    pub operand_fallbacks: u64,
}

/// Returns the memory that the backend of a device uses.
pub(crate) fn usage<T>(device: &Device, memory_budget: &MemoryBudget<T>) -> CudaUsage {
    let (budget, pinned) = (memory_budget.usage(), device.pinned.usage());
    let operands = device.resident_usage();
    CudaUsage {
        device_capacity: memory_budget.capacity(),
        device_reserved: budget.reserved,
        device_idle: device.idle_memory(),
        waiting: budget.waiting,
        waits: budget.waits,
        rejections: budget.rejections,
        pinned: pinned.bytes as u64,
        pinned_in_use: pinned.in_use as u64,
        pinned_fallbacks: pinned.fallbacks,
        operand_memory: operands.budget,
        operand_bytes: operands.bytes,
        operand_copies: operands.copies,
        operand_hits: operands.hits,
        operand_misses: operands.misses,
        operand_evictions: operands.evictions,
        operand_fallbacks: operands.fallbacks,
    }
}
