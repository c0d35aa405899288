//! [`ProcessWorker`]: runs jobs in a device process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::device_process::{Process, Verdict};
use super::message::{self, DeviceTimesRecord, Done, Reader, Run, SentError, StoredOperand, StoredTensor};
use super::processes::Shared;
use super::report;
use crate::backends::worker_pool::{Reservation, Worker};
use crate::error::{Classify, ErrorKind, chain};
use crate::process::{CallError, Caller, Message, OutOfSharedMemory, Received, Waiting};
use crate::request::{DeviceTimes, RequestContext};
use crate::service::transfer::Transfer;
use crate::service::{Job, KernelError, OperandVersion, RunContext, Tensor, Typed};

/// How often a run that others have interrupted is started again.
const MAX_INTERRUPTIONS: u32 = 3;

/// A worker whose jobs run in a device process, on the partner of this worker there.
pub(super) struct ProcessWorker {
    shared: Arc<Shared>,
    index: usize,
    times: Option<DeviceTimes>,
    /// The versions of operands that the device had before the last run.
    resident: Vec<u64>,
}

/// Why a call has no result.
enum Lost {
    /// The process has ended.
    Ended(Verdict),
    /// The job cannot be sent, or is to end.
    Failed(KernelError),
}

impl From<KernelError> for Lost {
    fn from(error: KernelError) -> Self {
        Self::Failed(error)
    }
}

impl ProcessWorker {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index, times: None, resident: Vec::new() }
    }

    /// Runs the inputs of a job, one or those that share its run, together; and each alone once it is suspected of ending its
    /// process.
    fn run_all(&mut self, inputs: &[Input<'_>], job: &Job, context: &RunContext<'_>) -> Result<Outputs, KernelError> {
        let is_pure = job.kernel().info().pure;
        for _ in 0..MAX_INTERRUPTIONS {
            let process = self.shared.active(context)?;
            let result = self.call(&process, self.index, inputs, job, context);
            if let Err(Lost::Ended(_)) = result {
                // Its watcher may do so later, and the next attempt must not go to the same process.
                self.shared.replace(&process);
            }
            let reason = match result {
                Ok(outputs) => return Ok(outputs),
                Err(Lost::Failed(error)) => return Err(error),
                Err(Lost::Ended(Verdict::Guilty { reason })) if inputs.len() == 1 => {
                    return Err(self.fault(inputs[0].job, &reason, context));
                }
                Err(Lost::Ended(Verdict::Guilty { reason } | Verdict::Suspect { reason })) => {
                    if is_pure {
                        return Ok(inputs.iter().map(|input| self.run_alone(input, context)).collect());
                    }
                    reason
                }
                Err(Lost::Ended(Verdict::NotStarted)) => {
                    context.check_before_start()?;
                    continue;
                }
                Err(Lost::Ended(Verdict::Innocent { reason })) => {
                    context.check()?;
                    if is_pure {
                        continue;
                    }
                    reason
                }
            };
            return Err(self.interrupted(&reason));
        }
        Err(self.interrupted("the process ended several times"))
    }

    /// Runs an input in a process that runs nothing else, so that nothing else is interrupted if it ends that process.
    fn run_alone(&mut self, input: &Input<'_>, context: &RunContext<'_>) -> Result<Typed, KernelError> {
        let context = &match input.job.deadline() {
            None => *context,
            deadline => context.with_deadline(deadline),
        };
        let (shared, job) = (Arc::clone(&self.shared), input.job);
        let inputs = std::slice::from_ref(input);
        for _ in 0..MAX_INTERRUPTIONS {
            match shared.run_alone(context, |process| self.call(process, 0, inputs, job, context))? {
                Ok(mut outputs) => return outputs.pop().expect("as many outputs as inputs"),
                Err(Lost::Failed(error)) => return Err(error),
                Err(Lost::Ended(
                    Verdict::Guilty { reason } | Verdict::Suspect { reason } | Verdict::Innocent { reason },
                )) => return Err(self.fault(job, &reason, context)),
                Err(Lost::Ended(Verdict::NotStarted)) => {}
            }
        }
        Err(self.interrupted("the process ended several times"))
    }

    /// Records that a job has ended its process, and returns its error.
    fn fault(&self, job: &Job, reason: &str, context: &RunContext<'_>) -> KernelError {
        let (kernel, shared) = (job.kernel().info().id.clone(), &self.shared);
        let device = shared.device_name();
        tracing::error!(%kernel, device, reason, "a kernel ended its device process");
        shared.faults.record(&kernel, job.tenant());
        let fault = report::Fault { kernel: &kernel, device: &device, reason, device_info: shared.device_info() };
        report::write(shared.config(), &fault, &shared.last_runs);
        // A run that did not end in time has the error of that.
        match context.check() {
            Err(stopped) => stopped,
            Ok(()) => KernelError::DeviceFault { kernel, reason: reason.into() },
        }
    }

    fn interrupted(&self, reason: &str) -> KernelError {
        KernelError::Interrupted { device: self.shared.device_name().into(), reason: reason.into() }
    }

    /// Sends inputs to a process and waits for their outputs.
    fn call(
        &mut self,
        process: &Arc<Process>,
        mailbox: usize,
        inputs: &[Input<'_>],
        job: &Job,
        context: &RunContext<'_>,
    ) -> Result<Outputs, Lost> {
        let running = process.begin();
        // A worker has one job at a time, so its mailbox is there.
        let mut caller = process.take_caller(mailbox).ok_or_else(|| internal("the mailbox is in use"))?;
        if self.shared.config().reports.is_some() {
            self.shared.last_runs.add(job.kernel().info().id.clone(), process.pid());
        }
        let mut call = Call { process, mailbox, caller: &mut caller, hang_timeout: self.shared.config().hang_timeout };
        let done = call.send_operands(job, context).and_then(|()| call.run(inputs, job, context));
        let done = done.map_err(|error| match error {
            Failed::Error(error) => Lost::Failed(error),
            // While it counts as running.
            Failed::Ended { was_taken } => Lost::Ended(process.judge(mailbox, was_taken)),
        });
        process.put_caller(mailbox, caller);
        drop(running);
        let (outputs, times, resident) = done?;
        (self.times, self.resident) = (times, resident);
        Ok(outputs)
    }
}

/// An input, and the job that it is of.
struct Input<'a> {
    job: &'a Job,
    transfer: Transfer,
}

/// The output of each input.
type Outputs = Vec<Result<Typed, KernelError>>;

impl Worker for ProcessWorker {
    fn run(&mut self, job: &Job, context: &RunContext<'_>, _: Option<Reservation>) -> Result<Typed, KernelError> {
        self.times = None;
        self.resident.clear();
        let jobs: Vec<&Job> = job.members().map_or_else(|| vec![job], |members| members.iter().collect());
        let faults = &self.shared.faults;
        let mut inputs = Vec::with_capacity(jobs.len());
        let mut rejected = Vec::with_capacity(jobs.len());
        for (job, transfer) in jobs.into_iter().zip(job.transfers()) {
            let transfer = faults.check(&job.kernel().info().id, job.tenant()).and(transfer);
            rejected.push(transfer.map(|transfer| inputs.push(Input { job, transfer })).err());
        }
        let outputs = if inputs.is_empty() { Vec::new() } else { self.run_all(&inputs, job, context)? };
        let mut outputs = outputs.into_iter();
        let output = |rejected: Option<KernelError>| match rejected {
            Some(error) => Err(error),
            None => outputs.next().expect("as many outputs as inputs"),
        };
        job.join_outputs(rejected.into_iter().map(output).collect())
    }

    fn take_times(&mut self, _: &Job) -> Option<DeviceTimes> {
        self.times.take()
    }

    fn was_resident(&self, operand: &OperandVersion) -> bool {
        self.resident.contains(&operand.id())
    }

    // A panic leaves no state broken but a mailbox that was not given back, whose process is ended.
    fn recover(&mut self) {
        self.shared.end_without_mailbox(self.index);
    }
}

/// One call.
struct Call<'a> {
    process: &'a Process,
    mailbox: usize,
    caller: &'a mut Caller,
    hang_timeout: Duration,
}

enum Failed {
    Error(KernelError),
    /// The process has ended, or was killed.
    Ended {
        /// Whether it had begun with the call.
        was_taken: bool,
    },
}

impl Call<'_> {
    /// Sends the operands of a job that the process does not have.
    fn send_operands(&mut self, job: &Job, context: &RunContext<'_>) -> Result<(), Failed> {
        for version in job.operands() {
            let process = self.process;
            process.operands.ensure(version, || {
                let tensors = version.to_tensors();
                let stored_tensor = |(name, tensor): (&str, &Tensor)| StoredTensor {
                    name: name.to_owned(),
                    dtype: tensor.dtype().as_str().to_owned(),
                    shape: tensor.shape().to_vec(),
                };
                let operand = StoredOperand {
                    id: version.id(),
                    name: version.name().to_owned(),
                    version: version.version(),
                    r#type: version.type_name().to_owned(),
                    placement: version.placement(),
                    tensors: tensors.iter().map(stored_tensor).collect(),
                };
                let sections: Vec<Bytes> = tensors.iter().map(|(_, tensor)| tensor.data().clone()).collect();
                let (head, _) =
                    message::write(&operand, Vec::new()).map_err(|error| Failed::Error(internal(&error)))?;
                let received =
                    self.send(Message { kind: message::OPERAND, head: &head, sections: &sections }, context)?;
                let (done, _): (Done, _) = self.read(received)?;
                done.outputs.map(drop).map_err(|error| self.error(&error))
            })?;
        }
        Ok(())
    }

    /// Runs the inputs.
    fn run(
        &mut self,
        inputs: &[Input<'_>],
        job: &Job,
        context: &RunContext<'_>,
    ) -> Result<(Outputs, Option<DeviceTimes>, Vec<u64>), Failed> {
        let error = |error: String| Failed::Error(internal(&error));
        let run = Run {
            kernel: job.kernel().info().id.clone(),
            priority: job.priority(),
            time_left: context.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now())),
            forget: self.process.operands.take_unused(),
            inputs: inputs
                .iter()
                .map(|input| message::size(&input.transfer))
                .collect::<Result<_, _>>()
                .map_err(error)?,
        };
        let transfers = inputs.iter().map(|input| &input.transfer);
        let (head, sections) = message::write(&run, transfers).map_err(error)?;
        let received = self.send(Message { kind: message::RUN, head: &head, sections: &sections }, context)?;
        let (Done { outputs, times, resident }, mut reader) = self.read(received)?;
        let outputs: Vec<_> = outputs.map_err(|error| self.error(&error))?;
        if outputs.len() != inputs.len() {
            return Err(self.corrupt(&format!("{} outputs for {} inputs", outputs.len(), inputs.len())));
        }
        let mut read = Vec::with_capacity(inputs.len());
        for output in outputs {
            read.push(match output {
                Ok(size) => {
                    let transfer = reader.value(size).map_err(|what| self.corrupt(&what))?;
                    Ok(job
                        .kernel()
                        .receive_output(transfer)
                        .map_err(|error| self.corrupt(&chain(&error).to_string()))?)
                }
                Err(error) => Err(error.read().map_err(|what| self.corrupt(&what))?),
            });
        }
        let times = times.map(|DeviceTimesRecord { upload, kernel, download, bound }| DeviceTimes {
            upload,
            kernel,
            download,
            bound,
        });
        Ok((read, times, resident))
    }

    fn send(&mut self, message: Message<'_>, context: &RunContext<'_>) -> Result<Received, Failed> {
        let mut stopped = None;
        let mut poll = || {
            if context.check().is_ok() {
                return Waiting::Continue;
            }
            let stopped = *stopped.get_or_insert_with(Instant::now);
            if stopped.elapsed() < self.hang_timeout { Waiting::Cancel } else { Waiting::GiveUp }
        };
        match self.caller.call(message, &mut poll) {
            Ok(received) => Ok(received),
            Err(CallError::Died) => Err(Failed::Ended { was_taken: self.caller.was_taken() }),
            Err(CallError::GaveUp) => {
                self.process.kill_hung(self.mailbox, self.hang_timeout);
                Err(Failed::Ended { was_taken: true })
            }
            Err(CallError::Corrupt(what)) => Err(self.corrupt(&what)),
            Err(CallError::Failed(what)) => Err(Failed::Error(internal(&what))),
            Err(CallError::OutOfSharedMemory(error)) => Err(Failed::Error(KernelError::backend(error))),
        }
    }

    fn read(&self, received: Received) -> Result<(Done, Reader), Failed> {
        if received.kind != message::DONE {
            return Err(self.corrupt(&format!("a message of kind {}", received.kind)));
        }
        Reader::new(received.head, received.sections).map_err(|what| self.corrupt(&what))
    }

    fn error(&self, error: &SentError) -> Failed {
        error.read().map_or_else(|what| self.corrupt(&what), Failed::Error)
    }

    /// Ends a process whose messages make no sense.
    fn corrupt(&self, what: &str) -> Failed {
        self.process.kill_corrupt(format!("its response made no sense: {what}"));
        Failed::Ended { was_taken: true }
    }
}

fn internal(what: &str) -> KernelError {
    KernelError::Device(what.to_owned())
}

impl Classify for OutOfSharedMemory {
    fn kind(&self) -> ErrorKind {
        if self.need > self.budget { ErrorKind::TooLarge } else { ErrorKind::Overloaded }
    }

    fn retry_after(&self) -> Option<Duration> {
        (self.kind() == ErrorKind::Overloaded).then_some(Duration::from_secs(1))
    }
}
