//! [`IsolatedDevice`]: a device that a process of its own has open.

use crate::backends::process::{OpenedDevice, ProcessConfig, Processes, ReportedUsage, Setup};
use crate::backends::worker_pool::{Profile, WorkerPool};
use crate::cuda::{CudaConfig, DeviceInfo, Gpu, Peak, Unavailable};

/// A device that a process of its own has open, as this process sees it.
#[derive(Debug)]
pub(super) struct IsolatedDevice {
    pub(super) info: DeviceInfo,
    pub(super) peak: Option<Peak>,
    pub(super) gpu: Option<Gpu>,
    pub(super) processes: Processes,
}

impl IsolatedDevice {
    /// Starts the processes, and the pool of workers that have their jobs run there.
    ///
    /// # Errors
    /// Why the device is not available.
    pub(super) fn open(
        ordinal: u32,
        config: &CudaConfig,
        processes: &ProcessConfig,
        profile: Profile,
    ) -> Result<(Self, WorkerPool), Unavailable> {
        let failed = |reason: String| Unavailable::Failed(reason);
        let settings = serde_json::to_value(config).map_err(|error| failed(error.to_string()))?;
        let setup = Setup::cuda(ordinal, settings, config.copy_threads);
        let (processes, pool) =
            Processes::start_pool(processes, setup, config.workers, config.queue, profile).map_err(failed)?;
        let opened: OpenedDevice =
            serde_json::from_value(processes.device()).map_err(|error| failed(error.to_string()))?;
        let OpenedDevice { info, peak, pci_bus_id, .. } = opened;
        Ok((Self { info, peak, gpu: Gpu::find(ordinal, &pci_bus_id), processes }, pool))
    }

    /// Returns what the process last reported of its memory.
    pub(super) fn usage(&self) -> ReportedUsage {
        serde_json::from_value(self.processes.usage()).unwrap_or_default()
    }
}
