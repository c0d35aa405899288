//! What a device process does: it opens its device, and runs the jobs that its parent sends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::message::{self, DeviceTimesRecord, Done, Reader, Report, Run, Setup, StoredOperand, StoredTensor};
use crate::backends::cpu::CpuWorker;
use crate::backends::worker_pool::Worker;
use crate::panics::catch_panic;
use crate::process::{Callee, Closed, Control, Inherited, Message, Received, SendError};
use crate::request::{BackendKind, DeviceTimes};
use crate::service::transfer::Transfer;
use crate::service::{
    DType, Job, KernelError, KernelRegistry, OperandVersion, RunContext, Tensor, Tensors, VersionLookup,
};

/// The exit code of a process whose device is lost.
#[cfg(feature = "cuda")]
const DEVICE_LOST: i32 = 71;
/// The exit code of a process that cannot be set up.
const NOT_READY: i32 = 72;

/// What the threads of a process share.
pub(super) struct Shared {
    pub(super) registry: KernelRegistry,
    operands: Mutex<HashMap<u64, Arc<OperandVersion>>>,
    pub(super) control: Control,
}

/// Runs jobs until the parent closes the mailboxes. Returns the exit code.
pub(super) fn serve(inherited: Inherited, registry: impl FnOnce() -> KernelRegistry) -> i32 {
    let Inherited { role, control, callees } = inherited;
    let shared = Arc::new(Shared { registry: registry(), operands: Mutex::default(), control });
    let ready = rmp_serde::from_slice(&role).map_err(|error| format!("its setup does not parse: {error}"));
    let started = ready.and_then(|Setup { backend, ordinal, config, .. }| match backend {
        BackendKind::Cpu => {
            let _ = (ordinal, config);
            let workers = callees.into_iter().map(|callee| (callee, CpuWorker)).collect();
            Ok((start(&shared, workers)?, serde_json::Value::Null))
        }
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => super::cuda::open(&shared, ordinal, config, callees),
        #[cfg(not(feature = "cuda"))]
        BackendKind::Cuda => Err("this program was built without CUDA".to_owned()),
    });
    let threads = match started {
        Ok((threads, device)) => {
            shared.report(&Report::Ready(device));
            threads
        }
        Err(reason) => {
            shared.report(&Report::Failed(reason));
            return NOT_READY;
        }
    };
    for thread in threads {
        // A thread that panicked has nothing to say; its parent kills the process.
        let _ = thread.join();
    }
    0
}

pub(super) type Threads = Vec<std::thread::JoinHandle<()>>;

/// Starts a thread for each mailbox, with the worker that runs its jobs.
pub(super) fn start<W: Worker>(shared: &Arc<Shared>, workers: Vec<(Callee, W)>) -> Result<Threads, String> {
    let start = |(index, (callee, worker)): (usize, (Callee, W))| {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        thread.spawn(move || Partner { shared, callee, worker }.run())
    };
    let threads = workers.into_iter().enumerate().map(start).collect::<Result<_, _>>();
    threads.map_err(|error| format!("a thread did not start: {error}"))
}

impl Shared {
    /// Reports the memory in use.
    #[cfg(feature = "cuda")]
    pub(super) fn report_usage(&self, usage: &impl serde::Serialize) {
        if let Ok(usage) = serde_json::to_value(usage) {
            self.report(&Report::Usage(usage));
        }
    }

    fn report(&self, report: &Report) {
        match rmp_serde::to_vec_named(report) {
            // A parent that does not listen has ended, and this process ends as well.
            Ok(bytes) => drop(self.control.send(&bytes, &[])),
            Err(error) => eprintln!("a report cannot be written: {error}"),
        }
    }

    /// Finds the operands that the parent has sent.
    fn versions(self: &Arc<Self>) -> VersionLookup {
        let shared = Arc::clone(self);
        Arc::new(move |id| shared.operands.lock().get(&id).cloned())
    }

    fn forget(&self, versions: &[u64]) {
        if versions.is_empty() {
            return;
        }
        let mut operands = self.operands.lock();
        let forgotten: Vec<_> = versions.iter().filter_map(|id| operands.remove(id)).collect();
        drop(operands);
        // Large values take a while.
        drop(forgotten);
    }

    /// Reports that the device is lost, and ends the process.
    #[cfg(feature = "cuda")]
    pub(super) fn device_lost(&self, reason: &str) -> ! {
        self.report(&Report::Fault(reason.to_owned()));
        // Destructors would call a driver whose context is broken, and can hang.
        crate::process::exit_now(DEVICE_LOST)
    }
}

/// A thread of the process: the partner of a worker in the parent.
struct Partner<W> {
    shared: Arc<Shared>,
    callee: Callee,
    worker: W,
}

impl<W: Worker> Partner<W> {
    fn run(mut self) {
        loop {
            let received = match self.callee.next() {
                Ok(received) => received,
                Err(Closed::Ended) => return,
                Err(Closed::Corrupt(what)) => {
                    eprintln!("a message from the parent made no sense: {what}");
                    return;
                }
            };
            let result = match received.kind {
                message::RUN => self.run_job(received),
                message::OPERAND => self.store_operand(received).map(|()| (Done::default(), Vec::new())),
                kind => Err(internal(format!("a message of kind {kind}"))),
            };
            let (done, outputs) = result.unwrap_or_else(|error| (Done::failed(&error), Vec::new()));
            if self.respond(&done, &outputs).is_err() {
                return;
            }
        }
    }

    fn respond(&mut self, done: &Done, outputs: &[Transfer]) -> Result<(), SendError> {
        let (head, sections) = match message::write(done, outputs) {
            Ok(written) => written,
            Err(error) => return self.respond_error(&internal(error)),
        };
        match self.callee.respond(Message { kind: message::DONE, head: &head, sections: &sections }) {
            Err(SendError::OutOfSharedMemory(error)) => self.respond_error(&KernelError::backend(error)),
            Err(SendError::Failed(what)) => self.respond_error(&internal(what)),
            sent => sent,
        }
    }

    fn respond_error(&mut self, error: &KernelError) -> Result<(), SendError> {
        let (head, _) = message::write(&Done::failed(error), []).map_err(SendError::Failed)?;
        self.callee.respond(Message { kind: message::DONE, head: &head, sections: &[] })
    }

    /// Runs a job. Its input is dropped before this returns, and with it the memory that the parent lent.
    fn run_job(&mut self, received: Received) -> Result<(Done, Vec<Transfer>), KernelError> {
        let (run, mut reader): (Run, _) = Reader::new(received.head, received.sections).map_err(internal)?;
        self.shared.forget(&run.forget);
        let deadline = run.time_left.and_then(|left| Instant::now().checked_add(left));
        let shared = Arc::clone(&self.shared);
        let kernel = shared.registry.get(&run.kernel).ok_or_else(|| KernelError::unknown(run.kernel))?;
        let inputs =
            run.inputs.into_iter().map(|size| reader.value(size)).collect::<Result<_, _>>().map_err(internal)?;
        let mut job = Job::received(&kernel, inputs, &shared.versions())?;
        job.set_priority(run.priority);
        let cancelled = self.callee.cancel_check();
        let is_cancelled = || cancelled.is_cancelled();
        let context = RunContext::new(Some(&is_cancelled), deadline);
        context.check_before_start()?;
        let worker = &mut self.worker;
        let output = catch_panic(|| worker.run(&job, &context, None)).unwrap_or_else(|panicked| {
            worker.recover();
            Err(KernelError::Panicked { message: panicked.into_message() })
        })?;
        let times = worker.take_times(&job).map(|DeviceTimes { upload, kernel, download, bound, .. }| {
            DeviceTimesRecord { upload, kernel, download, bound }
        });
        let was_resident = |version: &&Arc<OperandVersion>| worker.was_resident(version);
        let resident = job.operands().into_iter().filter(was_resident).map(|version| version.id()).collect();
        let mut values = Vec::new();
        let mut outputs = Vec::new();
        for output in job.split_output(output) {
            outputs.push(match output.and_then(|output| kernel.transfer_output(&output)) {
                Ok(value) => {
                    let size = message::size(&value).map_err(internal)?;
                    values.push(value);
                    Ok(size)
                }
                Err(error) => Err((&error).into()),
            });
        }
        Ok((Done { outputs: Ok(outputs), times, resident }, values))
    }

    fn store_operand(&self, received: Received) -> Result<(), KernelError> {
        let (operand, reader): (StoredOperand, _) = Reader::new(received.head, received.sections).map_err(internal)?;
        let StoredOperand { id, name, version, r#type, placement, tensors } = operand;
        let sections = reader.sections();
        if sections.len() != tensors.len() {
            return Err(internal("an operand with another number of sections than tensors"));
        }
        let mut read = Tensors::new();
        for (StoredTensor { name, dtype, shape }, data) in tensors.into_iter().zip(sections) {
            let dtype = DType::from_name(&dtype).ok_or_else(|| internal("an operand of an unknown dtype"))?;
            let tensor = Tensor::new(dtype, shape, data).and_then(|tensor| read.insert(name, tensor));
            tensor.map_err(|error| internal(error.to_string()))?;
        }
        let received = self.shared.registry.operands().receive(id, &r#type, (name, version), placement, read)?;
        self.shared.operands.lock().insert(id, received);
        Ok(())
    }
}

impl Default for Done {
    fn default() -> Self {
        Self { outputs: Ok(Vec::new()), times: None, resident: Vec::new() }
    }
}

impl Done {
    fn failed(error: &KernelError) -> Self {
        Self { outputs: Err(error.into()), ..Self::default() }
    }
}

fn internal(what: impl Into<String>) -> KernelError {
    KernelError::Device(what.into())
}
