//! [`OpenDevice`]: a device that this process has open.

use std::sync::{Arc, Mutex, PoisonError};

use super::worker::CudaWorker;
use crate::backends::worker_pool::MemoryBudget;
use crate::cuda::{CudaConfig, Device, HostArrays, StreamExecutor};
use crate::service::{KernelError, OperandBudget, OperandError};

/// A device that this process has open.
#[derive(Debug)]
pub(super) struct OpenDevice {
    pub(super) device: Arc<Device>,
    pub(super) memory_budget: Arc<MemoryBudget>,
    /// Copies operands to the device ahead of requests; created when that is first needed.
    placement_worker: Mutex<Option<CudaWorker>>,
    config: CudaConfig,
}

impl OpenDevice {
    pub(super) fn new(device: Arc<Device>, memory_budget: Arc<MemoryBudget>, config: CudaConfig) -> Self {
        Self { device, memory_budget, placement_worker: Mutex::default(), config }
    }

    /// See [`CudaBackend::place`](super::CudaBackend).
    pub(super) fn place(&self, arrays: &HostArrays) -> Result<(), OperandError> {
        let mut worker = self.placement_worker.lock().unwrap_or_else(PoisonError::into_inner);
        let (need, free) = (self.device.needed_for_copies(arrays), self.free_operand_memory());
        let over_budget = OperandError::OverBudget { budget: OperandBudget::Device, need, free };
        if need > free {
            return Err(over_budget);
        }
        self.device.pin(arrays);
        let made = match &mut *worker {
            Some(worker) => worker.make_resident(arrays),
            None => StreamExecutor::new(Arc::clone(&self.device), &self.config, self.config.workers)
                .and_then(|executor| worker.insert(CudaWorker::new(executor)).make_resident(arrays)),
        };
        let placed = match made {
            Ok(true) => return Ok(()),
            Ok(false) => over_budget,
            Err(error) => KernelError::from(error).into(),
        };
        self.device.unpin(arrays);
        Err(placed)
    }

    /// Returns the device memory that copies of operands may still take, after the eviction of those that are idle and not
    /// pinned.
    pub(super) fn free_operand_memory(&self) -> u64 {
        let usage = self.device.resident_usage();
        let of_budget = usage.budget.saturating_sub(usage.bytes);
        let of_device = self.memory_budget.capacity().saturating_sub(self.memory_budget.usage().reserved);
        of_budget.min(of_device) + usage.evictable
    }
}
