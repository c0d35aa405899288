//! A device process that owns a CUDA device.

use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::child::{Shared, Threads, start};
use crate::backends::cuda::{CudaUsage, CudaWorker, pin_segment, usage};
use crate::backends::worker_pool::memory_budget::{Admission, MemoryBudget, Reservation};
use crate::backends::worker_pool::{self, Worker};
use crate::cuda::{CudaConfig, CudaError, Device, DeviceInfo, Gpu, Peak, ReservedMemory, StreamExecutor};
use crate::process::{Callee, reject_sockets};
use crate::request::DeviceTimes;
use crate::service::{Job, KernelError, OperandVersion, RegisteredKernel, RunContext, Typed};

/// How often the memory in use is reported, if it has changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a job that waits for memory checks whether it should go on.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// What a device process reports of its device when it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenedDevice {
    pub(crate) info: DeviceInfo,
    pub(crate) peak: Option<Peak>,
    pub(crate) pci_bus_id: String,
    /// The version of the driver, if NVML tells it.
    driver_version: Option<String>,
}

/// What a device process reports of its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedUsage {
    pub(crate) usage: CudaUsage,
    pub(crate) modules_loaded: usize,
    pub(crate) modules_loading: usize,
}

/// Opens the device, and starts a thread for each mailbox.
///
/// # Errors
/// Why the device is not available.
pub(super) fn open(
    shared: &Arc<Shared>,
    ordinal: u32,
    config: serde_json::Value,
    callees: Vec<Callee>,
) -> Result<(Threads, serde_json::Value), String> {
    let config: CudaConfig = serde_json::from_value(config).map_err(|error| error.to_string())?;
    let (device, budget) = Device::open(ordinal, &config, MemoryBudget::new).map_err(|why| why.to_string())?;
    // The driver needs one when it is initialized, and none from then on.
    reject_sockets().map_err(|error| format!("its sockets cannot be rejected: {error}"))?;
    let device = Arc::new(device);
    let pinned = device.pinned.clone();
    shared.control.on_mapped(move |segment| Some(Box::new(pin_segment(&pinned, segment)?)));
    budget.on_admitted(|Waiting(sender), reservation| {
        // A job that has been cancelled does not wait any more, and its memory is given back here.
        let _ = sender.send(reservation);
    });
    let weak = Arc::downgrade(&device);
    budget.on_shortage(move || {
        if let Some(device) = weak.upgrade() {
            device.relieve_shortage();
        }
    });
    let lost = Arc::clone(shared);
    device.health.on_lost(move |error| {
        let reason = match error {
            CudaError::DeviceLost { reason, .. } => reason.to_string(),
            other => other.to_string(),
        };
        lost.device_lost(&reason)
    });
    let worker = |(index, callee): (usize, Callee)| {
        let executor = StreamExecutor::new(Arc::clone(&device), &config, index)?;
        Ok((callee, BudgetedWorker { worker: CudaWorker::new(executor), budget: Arc::clone(&budget) }))
    };
    let workers: Result<Vec<_>, CudaError> = callees.into_iter().enumerate().map(worker).collect();
    let threads = start(shared, workers.map_err(|error| error.to_string())?)?;
    let modules = shared.registry.list().iter().flat_map(RegisteredKernel::modules).collect();
    device.load_in_background(modules).map_err(|error| format!("a thread did not start: {error}"))?;
    let (reports, weak) = (Arc::clone(shared), Arc::downgrade(&device));
    std::thread::Builder::new()
        .name("usage".to_owned())
        .spawn(move || report_usage(&reports, &weak, &budget))
        .map_err(|error| format!("a thread did not start: {error}"))?;
    let pci_bus_id = device.pci_bus_id().map_err(|error| error.to_string())?;
    let driver_version = device.gpu.as_ref().and_then(Gpu::driver_version);
    let opened = OpenedDevice { info: device.info.clone(), peak: device.peak, pci_bus_id, driver_version };
    Ok((threads, serde_json::to_value(opened).map_err(|error| error.to_string())?))
}

/// Reports the memory in use whenever it has changed, for as long as the device is open.
fn report_usage(shared: &Shared, device: &Weak<Device>, budget: &MemoryBudget<Waiting>) {
    let mut last = ReportedUsage::default();
    while let Some(device) = device.upgrade() {
        let (modules_loaded, modules_loading) = device.module_counts();
        let now = ReportedUsage { usage: usage(&device, budget), modules_loaded, modules_loading };
        drop(device);
        if now != last {
            shared.report_usage(&now);
            last = now;
        }
        std::thread::sleep(REPORT_INTERVAL);
    }
}

/// A job that waits for device memory.
struct Waiting(Sender<Reservation<Waiting>>);

/// A worker that reserves the device memory of its jobs itself. A job that waits keeps its worker.
struct BudgetedWorker {
    worker: CudaWorker,
    budget: Arc<MemoryBudget<Waiting>>,
}

impl BudgetedWorker {
    fn reserve(&self, job: &Job, context: &RunContext<'_>) -> Result<Option<Reservation<Waiting>>, KernelError> {
        let need = self.worker.needs(job);
        if need == 0 {
            return Ok(None);
        }
        let (sender, receiver) = channel();
        match self.budget.request(need, Waiting(sender)) {
            Admission::Admitted(_, reservation) => return Ok(Some(reservation)),
            Admission::TooLarge(_) => {
                let total = self.budget.capacity();
                return Err(KernelError::OutOfMemory { need, free: total, total });
            }
            Admission::Queued => {}
        }
        loop {
            match receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(reservation) => return Ok(Some(reservation)),
                Err(RecvTimeoutError::Timeout) => context.check_before_start()?,
                Err(RecvTimeoutError::Disconnected) => return Err(KernelError::Stopped { backend: "CUDA" }),
            }
        }
    }
}

impl Worker for BudgetedWorker {
    fn run(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        _: Option<worker_pool::Reservation>,
    ) -> Result<Typed, KernelError> {
        let reservation = self.reserve(job, context)?;
        let reservation = reservation.map(|reservation| Box::new(reservation) as Box<dyn ReservedMemory>);
        self.worker.run_reserved(job, context, reservation)
    }

    fn take_times(&mut self, job: &Job) -> Option<DeviceTimes> {
        self.worker.take_times(job)
    }

    fn was_resident(&self, operand: &OperandVersion) -> bool {
        self.worker.was_resident(operand)
    }

    fn recover(&mut self) {
        self.worker.recover();
    }
}

impl fmt::Debug for BudgetedWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetedWorker").field("worker", &self.worker).finish_non_exhaustive()
    }
}
