//! [`CudaWorker`]: runs jobs on a device.

use std::mem::ManuallyDrop;

use crate::backends::worker_pool::{Reservation, Worker};
use crate::cuda::{
    CudaError, HostArrays, LaunchContext, NeverCancelled, PhaseTimes, ReservedMemory, StreamExecutor, StreamPriority,
};
use crate::request::{DeviceTimes, Priority, RequestContext};
use crate::service::{Job, KernelError, OperandVersion, RunContext, Typed};

/// A worker of a device.
#[derive(Debug)]
pub(crate) struct CudaWorker(ManuallyDrop<StreamExecutor>);

impl CudaWorker {
    pub(crate) fn new(executor: StreamExecutor) -> Self {
        Self(ManuallyDrop::new(executor))
    }

    /// Makes copies of arrays that stay on the device. Returns whether there was memory for all of them.
    ///
    /// # Errors
    /// Errors of the driver.
    pub(super) fn make_resident(&mut self, arrays: &HostArrays) -> Result<bool, CudaError> {
        let executor = &mut *self.0;
        let begun = executor.begin(StreamPriority::Low, 0, None);
        let made = begun.and_then(|()| executor.make_all_resident(arrays, &NeverCancelled));
        let ended = executor.end(&NeverCancelled);
        let result = made.and_then(|made| ended.map(|()| made));
        result.map_err(|error| executor.record_error(error))
    }
}

/// A hung device may still write to the memory that it was given, and the calls that free it would wait for the device. So
/// the executor is leaked then, and with it the device.
impl Drop for CudaWorker {
    fn drop(&mut self) {
        if !self.0.device().health.is_hung() {
            // SAFETY: once, and nobody uses it after this.
            #[allow(unsafe_code)]
            unsafe {
                ManuallyDrop::drop(&mut self.0)
            };
        }
    }
}

impl CudaWorker {
    /// Runs a job with the device memory that was reserved for it.
    pub(crate) fn run_reserved(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        reservation: Option<Box<dyn ReservedMemory>>,
    ) -> Result<Typed, KernelError> {
        let executor = &mut *self.0;
        let input = job.prepared_input()?;
        job.operands().into_iter().for_each(|version| version.register_derived_arrays());
        let priority = stream_priority(job.priority());
        if let Err(error) = executor.begin(priority, input.cost.device_memory, reservation) {
            let error = executor.record_error(error);
            // Nothing was queued, so this does not wait.
            let ended = executor.end(context).map_err(|error| executor.record_error(error));
            return Err(kernel_error(ended.err().unwrap_or(error), context));
        }
        let result = job.kernel().run_cuda(input, &mut LaunchContext::new(executor, context));
        if result.is_err() {
            executor.cancel();
        }
        let uses_cancel_flag = executor.uses_cancel_flag();
        match executor.end(context) {
            Err(error) if !error.is_interruption() => Err(executor.record_error(error).into()),
            // A kernel that polls the flag may have ended early, before this thread saw the cancellation. Its output is
            // not complete then. The flag is only set where `check` fails, and from then on it always fails.
            _ if uses_cancel_flag => context.check().and(result),
            // A complete output is returned even if the job has been cancelled or the device lost meanwhile.
            _ => result,
        }
    }
}

impl Worker for CudaWorker {
    fn run(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        reservation: Option<Reservation>,
    ) -> Result<Typed, KernelError> {
        let reservation = reservation.map(|reservation| Box::new(reservation) as Box<dyn ReservedMemory>);
        self.run_reserved(job, context, reservation)
    }

    fn needs(&self, job: &Job) -> u64 {
        job.cost().map_or(0, |cost| self.0.reservation_for(cost.device_memory))
    }

    fn take_times(&mut self, job: &Job) -> Option<DeviceTimes> {
        let PhaseTimes { upload, kernel, download } = self.0.take_phase_times()?;
        let peak = self.0.device().peak;
        let bound =
            peak.zip(job.cost()).map(|(peak, cost)| cost.time(peak.bytes_per_second, peak.operations_per_second));
        Some(DeviceTimes { upload, kernel, download, bound })
    }

    fn was_resident(&self, operand: &OperandVersion) -> bool {
        operand.host_arrays().is_some_and(|arrays| self.0.were_resident(arrays))
    }

    fn recover(&mut self) {
        let executor = &mut *self.0;
        executor.cancel();
        if let Err(error) = executor.end(&NeverCancelled) {
            // Closes the pool if the device is lost. The caller gets the panic as its error.
            executor.record_error(error);
        }
    }
}

fn stream_priority(priority: Priority) -> StreamPriority {
    match priority {
        Priority::Low => StreamPriority::Low,
        Priority::Normal => StreamPriority::Normal,
        Priority::High => StreamPriority::High,
    }
}

/// The error of a job, with the reason of its context where it was cancelled.
fn kernel_error(error: CudaError, context: &RunContext<'_>) -> KernelError {
    match (error, context.check()) {
        (CudaError::Cancelled, Err(reason)) => reason,
        (error, _) => error.into(),
    }
}
