use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::codec::{Offloaded, decode_until, decoded_size, offload};
use super::erased::Input;
use super::operands::decode_with_operands;
use super::payload::Encoding;
use super::unencoded::Unencoded;
use super::{
    BackendKind, Cost, Footprint, HostReservation, KernelError, KernelRequest, KernelResponse, Mode, OperandVersion,
    Payload, PinnedMemory, Progress, RegisteredKernel, RequestOperands, RunContext, Typed,
};
use crate::fair_queue::QueueKey;
use crate::request::{Execution, OperandUse, Priority, RequestContext, Scheduling, Share, TraceContext};

/// A kernel request that a backend runs: the registered kernel, the payload, and the request's metadata.
///
/// A backend is a [`Service`](tower_service::Service) of jobs, so a layer fits around one backend as well as around the
/// whole service. Metadata is read through [`RequestContext`]. A backend of your own either
///
/// * runs the kernel on a thread of its own with [`run_cpu`](Self::run_cpu), or
/// * forwards the request elsewhere with [`into_request`](Self::into_request).
///
/// The backends of this crate return an output that is not encoded yet, as a typed payload; [`KernelService`](super::KernelService)
/// encodes it when the response has come through the layers around the backend. [`run_cpu`](Self::run_cpu) encodes it itself.
///
/// It fails a job with a [`KernelError`], such as one made by [`KernelError::backend`], or with an error type of its own
/// that implements `From<KernelError>`. The example `custom_backend` is a backend that forwards.
#[derive(Debug)]
pub struct Job {
    pub(super) kernel: RegisteredKernel,
    /// Empty once it has been decoded.
    payload: Payload,
    pub(super) deadline: Option<Instant>,
    tenant: Option<Arc<str>>,
    pub(super) backend: Option<BackendKind>,
    trace: Option<Box<TraceContext>>,
    pub(super) extensions: http::Extensions,
    /// The operands of the job's own request.
    pub(super) operands: RequestOperands,
    pub(super) input: Option<Input>,
    /// The error of decoding or validation.
    prepare_error: Option<Box<KernelError>>,
    /// How long its run may take on the backend that it is on now, in microseconds; 0 without a limit.
    run_limit: u32,
    /// When it began to wait for other jobs to share a run with.
    pub(super) batched_at: Option<Instant>,
    pub(super) priority: Priority,
    pub(super) scheduling: Scheduling,
    encoding: Encoding,
    is_valid: bool,
}

/// How long a codec thread had the input of a job, its wait included. It is one of the job's extensions: few jobs have one,
/// and a field would make the future of every job larger.
#[derive(Clone, Copy)]
struct Decoding(Duration);

impl Job {
    pub(crate) fn new(kernel: RegisteredKernel, request: KernelRequest) -> Result<Self, KernelError> {
        if kernel.info().mode == Mode::Ring {
            return Err(KernelError::RingKernel { id: kernel.info().id.clone() });
        }
        let backend = request.backend();
        let KernelRequest {
            kernel_id: _,
            payload,
            deadline,
            priority,
            tenant,
            trace,
            mut extensions,
            scheduling,
            has_resolved_operands: _,
        } = request;
        Ok(Self {
            kernel,
            encoding: payload.encoding(),
            payload,
            deadline,
            tenant,
            backend,
            trace,
            operands: extensions.remove().unwrap_or_default(),
            extensions,
            input: None,
            prepare_error: None,
            run_limit: 0,
            batched_at: None,
            priority,
            scheduling,
            is_valid: false,
        })
    }

    /// Creates a job whose input is decoded and valid.
    pub(super) fn prepared(kernel: RegisteredKernel, input: Input) -> Self {
        Self {
            kernel,
            payload: Payload::Json(Bytes::new()),
            deadline: None,
            tenant: None,
            backend: None,
            trace: None,
            extensions: http::Extensions::new(),
            operands: RequestOperands::none(),
            input: Some(input),
            prepare_error: None,
            run_limit: 0,
            batched_at: None,
            priority: Priority::default(),
            scheduling: Scheduling::default(),
            encoding: Encoding::Typed,
            is_valid: true,
        }
    }

    /// Returns the kernel to run.
    pub fn kernel(&self) -> &RegisteredKernel {
        &self.kernel
    }

    /// Returns the backend that the request asks for.
    pub fn requested_backend(&self) -> Option<BackendKind> {
        self.backend
    }

    /// Returns whether a backend of this kind may run the job: its kernel has code for it, and the request asks for no other.
    pub(crate) fn may_run_on(&self, backend: BackendKind) -> bool {
        self.kernel.info().supports(backend) && self.backend.is_none_or(|requested| requested == backend)
    }

    /// Returns the request's payload; `None` once it has been decoded.
    pub fn payload(&self) -> Option<&Payload> {
        (self.input.is_none() && self.prepare_error.is_none()).then_some(&self.payload)
    }

    /// Returns the request's extensions.
    pub fn extensions(&self) -> &http::Extensions {
        &self.extensions
    }

    /// Returns the versions of operands that the payload refers to. A job that others were merged into has those of all.
    pub(crate) fn operands(&self) -> Vec<&Arc<OperandVersion>> {
        let members = self.members().unwrap_or_default().iter();
        let mut all: Vec<&Arc<OperandVersion>> = Vec::new();
        for version in members.chain([self]).flat_map(|job| job.operands.versions()) {
            if all.iter().all(|known| known.id() != version.id()) {
                all.push(version);
            }
        }
        all
    }

    /// Returns the operands for the response, with whether each was resident on the device that ran the job.
    pub(crate) fn operand_uses(&self, is_resident: impl Fn(&OperandVersion) -> bool) -> Vec<OperandUse> {
        let versions = self.operands();
        let used = |version: &&Arc<OperandVersion>| {
            OperandUse::new(version.id(), version.shared_name(), version.version(), is_resident(version))
        };
        versions.iter().map(used).collect()
    }

    /// Returns the operands of the job's own request.
    pub(crate) fn request_operands(&self) -> RequestOperands {
        self.operands.clone()
    }

    /// Returns the estimated cost; `None` until the payload has been decoded.
    pub fn cost(&self) -> Option<Cost> {
        self.input.as_ref().map(|input| input.cost)
    }

    /// Converts the job back into the request that it was made from, to forward it to another service.
    ///
    /// The request names the kernel by its id, even if it came with an alias.
    ///
    /// # Errors
    /// [`KernelError::Kernel`] if the payload is gone: the input was decoded, which layers that merge requests do. So a
    /// backend that forwards goes outside of [`BatchedLayer`](crate::backends::BatchedLayer).
    pub fn into_request(mut self) -> Result<KernelRequest, KernelError> {
        let payload = match self.input.take() {
            None if self.prepare_error.is_none() => self.payload,
            Some(input) if self.encoding == Encoding::Typed && input.members().is_none() => Payload::Typed(input.value),
            _ => return Err(KernelError::kernel("the payload of the request was decoded and cannot be forwarded")),
        };
        let mut request = KernelRequest::new(self.kernel.info().id.clone(), payload);
        request.deadline = self.deadline;
        request.priority = self.priority;
        request.tenant = self.tenant;
        request.trace = self.trace;
        request.extensions = self.extensions;
        request.scheduling = self.scheduling;
        request.set_operands(self.operands);
        Ok(request)
    }

    /// Decodes and validates the input, runs the kernel's CPU code, and encodes the output, all on the calling thread.
    ///
    /// It blocks for as long as the kernel runs, so a backend calls it on a thread of its own. The kernel calls
    /// `is_cancelled` about once a millisecond; return `true` once the response future was dropped. The deadline is
    /// checked as well. The response's [`Execution`] has the time that the run took.
    ///
    /// # Errors
    /// Any [`KernelError`] of decoding, validation, the kernel and encoding; [`KernelError::Cancelled`] and
    /// [`KernelError::DeadlineExceeded`] where the run was stopped; [`KernelError::Panicked`] where the kernel panicked.
    pub fn run_cpu(&mut self, is_cancelled: impl Fn() -> bool + Sync) -> Result<KernelResponse, KernelError> {
        self.with_context(Some(&is_cancelled), |job, context| {
            context.check_before_start()?;
            job.prepare(None)?;
            let started = Instant::now();
            let (output, batch_size) = job.run_with(context, |job, context| job.run_kernel_on_cpu(context))?;
            let mut execution = Execution::new(BackendKind::Cpu.as_str());
            (execution.executed, execution.batch_size) = (started.elapsed(), batch_size);
            execution.set_operands(job.operand_uses(|_| true));
            Unencoded::encode_in(job.response(output, execution), Some(&is_cancelled))
        })
    }

    /// Runs the kernel's CPU code on the prepared input.
    pub(crate) fn run_kernel_on_cpu(&self, context: &RunContext<'_>) -> Result<Typed, KernelError> {
        self.kernel.run_cpu(self.prepared_input()?, context)
    }

    /// Calls `run` with the context of this job's run.
    pub(crate) fn with_context<R>(
        &mut self,
        is_cancelled: Option<&(dyn Fn() -> bool + Sync)>,
        run: impl FnOnce(&mut Self, &RunContext<'_>) -> R,
    ) -> R {
        let progress = self.extensions.get::<Progress>().cloned();
        let memory = self.memory().cloned();
        let limit = self.run_limit().and_then(|limit| Instant::now().checked_add(limit));
        let deadline = [self.deadline, limit].into_iter().flatten().min();
        let context =
            RunContext::new(is_cancelled, deadline).with_progress(progress.as_ref()).with_memory(memory.as_ref());
        run(self, &context)
    }

    /// Returns how long the run may take, whatever the deadline is.
    pub(crate) fn run_limit(&self) -> Option<Duration> {
        (self.run_limit > 0).then(|| Duration::from_micros(self.run_limit.into()))
    }

    /// Limits how long the run may take, to a microsecond or more.
    pub(crate) fn set_run_limit(&mut self, limit: Duration) {
        self.run_limit = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX).max(1);
    }

    /// Removes the limit of the run. Returns whether there was one.
    pub(crate) fn remove_run_limit(&mut self) -> bool {
        std::mem::take(&mut self.run_limit) > 0
    }

    /// Returns whether a run that found its deadline exceeded has reached the limit of its time and not its deadline.
    pub(crate) fn reached_run_limit(&self) -> bool {
        self.run_limit > 0 && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// Makes the response of a run. [`KernelService`](super::KernelService) encodes the output.
    pub(crate) fn response(&self, output: Typed, execution: Execution) -> KernelResponse {
        KernelResponse::new(self.payload_of(output), execution)
    }

    /// Makes the payload of the response, which is to be encoded unless the request has a typed payload.
    pub(crate) fn payload_of(&self, output: Typed) -> Payload {
        match (&self.input, self.encoding) {
            (Some(input), Encoding::Json | Encoding::Tensors) => {
                Payload::typed(Unencoded::new(self, input, output, self.encoding))
            }
            _ => Payload::Typed(output),
        }
    }

    /// Decodes and validates the input, as far as that takes no longer than `bound`.
    ///
    /// Later calls return the same error again, as the payload may be gone.
    pub(crate) fn prepare(&mut self, bound: Option<Duration>) -> Result<(), KernelError> {
        self.prepare_into(bound, None, None)
    }

    /// Decodes and validates the input on a codec thread, which copies large arrays into `memory` if they have to be copied.
    /// The job comes back prepared, or [`prepare`](Self::prepare) returns the error.
    pub(crate) fn offload_prepare(mut self, memory: Option<PinnedMemory>) -> Result<Offloaded<Self>, KernelError> {
        let key = QueueKey { expected: decode_time(&self.payload), ..self.queue_key() };
        let offloaded = Instant::now();
        offload(key, move |cancelled| {
            // It is kept in the job.
            let _error = self.prepare_into(None, memory.as_ref(), Some(cancelled));
            self.extensions.insert(Decoding(offloaded.elapsed()));
            self
        })
    }

    /// Returns whether the input has been decoded and found valid.
    pub(crate) fn is_prepared(&self) -> bool {
        self.is_valid
    }

    /// Returns how long a codec thread had the input, its wait included; zero if none did.
    pub(super) fn decoding(&self) -> Duration {
        self.extensions.get().map_or(Duration::ZERO, |&Decoding(time)| time)
    }

    /// Returns the position of the job in a queue; its expected time is not known.
    pub(crate) fn queue_key(&self) -> QueueKey {
        QueueKey { share: self.share().unwrap_or_default(), priority: self.priority, expected: Duration::ZERO }
    }

    fn prepare_into(
        &mut self,
        bound: Option<Duration>,
        memory: Option<&PinnedMemory>,
        cancelled: Option<&CancellationToken>,
    ) -> Result<(), KernelError> {
        if let Some(error) = &self.prepare_error {
            return Err(KernelError::clone(error));
        }
        let prepared = self.try_prepare(bound, memory, cancelled);
        if let Err(error) = &prepared {
            self.prepare_error = Some(Box::new(error.clone()));
        }
        prepared
    }

    fn try_prepare(
        &mut self,
        bound: Option<Duration>,
        memory: Option<&PinnedMemory>,
        cancelled: Option<&CancellationToken>,
    ) -> Result<(), KernelError> {
        let fits = |time: Duration| bound.is_none_or(|bound| time <= bound);
        // To look at what was read from a document takes less time than to read it.
        let mut is_quick = false;
        if self.input.is_none() {
            if !fits(decode_time(&self.payload)) {
                return Ok(());
            }
            is_quick = self.encoding != Encoding::Typed && self.operands.versions().is_empty();
            self.input = Some(self.decode(memory, cancelled)?);
        }
        let Some(input) = &self.input else { return Ok(()) };
        let time = || Cost { bytes: input.cost.bytes, ..Cost::default() }.time(TENSOR_RATE, 1.0);
        if !self.is_valid && (is_quick || fits(time())) {
            self.kernel.validate(input)?;
            self.is_valid = true;
        }
        Ok(())
    }

    fn decode(
        &mut self,
        memory: Option<&PinnedMemory>,
        cancelled: Option<&CancellationToken>,
    ) -> Result<Input, KernelError> {
        let payload = std::mem::replace(&mut self.payload, Payload::Json(Bytes::new()));
        let reservation = self.extensions.get::<HostReservation>();
        // An array decoded from JSON grows by doubling, so it can have twice its size until it is complete.
        let (decoded, growing) = match (reservation, &payload) {
            (Some(reservation), Payload::Json(document)) if reservation.is_limited() => {
                let decoded = decoded_size(document);
                (decoded, decoded)
            }
            (Some(_), Payload::Tensors(tensors)) => (tensors.bytes_to_copy() as u64, 0),
            _ => (0, 0),
        };
        if let Some(reservation) = reservation {
            reservation.grow(decoded + growing)?;
        }
        let decode = || decode_with_operands(&self.operands, || self.kernel.decode_input(payload, memory));
        let input = decode_until(self.deadline, cancelled, decode)??;
        if let Some(reservation) = reservation {
            reservation.shrink(growing);
        }
        Ok(input)
    }

    /// Returns the request's reservation of host memory, if it has one.
    pub(crate) fn memory(&self) -> Option<&HostReservation> {
        self.extensions.get()
    }

    /// Reserves the host memory of a run and of its encoded output.
    ///
    /// # Errors
    /// [`KernelError::Memory`] if it is not available, and [`KernelError::ResponseTooLarge`] if the encoded output is
    /// certain to be larger than the response may be.
    pub(crate) fn reserve_run(&self) -> Result<(), KernelError> {
        let (Some(memory), Some(input)) = (self.memory(), &self.input) else { return Ok(()) };
        let max = memory.max_response_size();
        let bytes = match self.kernel.footprint(input) {
            Some(run) => {
                let least = Footprint { output: self.kernel.min_output(input).unwrap_or(run.output), ..run };
                if least.min_encoded(self.encoding) > max {
                    return Err(KernelError::ResponseTooLarge { max });
                }
                run.reserved(self.encoding, max)
            }
            None => input.cost.bytes.min(memory.memory().max() / 16),
        };
        Ok(memory.grow(bytes)?)
    }

    /// Returns the input once [`prepare`](Self::prepare) has decoded and validated it.
    pub(crate) fn input(&self) -> Option<&Input> {
        self.input.as_ref().filter(|_| self.is_valid)
    }

    /// Returns the prepared input.
    ///
    /// # Errors
    /// [`KernelError::Device`] if the job has not been prepared.
    pub(crate) fn prepared_input(&self) -> Result<&Input, KernelError> {
        self.input().ok_or_else(|| KernelError::Device("a job was run before it was prepared".to_owned()))
    }
}

/// An input that takes no longer to decode is decoded on the calling thread, and an output is encoded there. It may be a
/// runtime's, whose tasks should not run for longer without a pause. A hop to another thread and back would take about 20 µs.
pub(crate) const CODEC_INLINE: Duration = Duration::from_micros(100);

/// Bytes decoded a second on one core: arrays of numbers in JSON.
const JSON_RATE: f64 = 350e6;
/// Bytes decoded a second on one core: tensors that are copied, as unaligned ones are.
const TENSOR_RATE: f64 = 5e9;

fn decode_time(payload: &Payload) -> Duration {
    let rate = match payload {
        Payload::Json(_) => JSON_RATE,
        Payload::Tensors(_) | Payload::Typed(_) => TENSOR_RATE,
    };
    Cost { bytes: payload.byte_len().unwrap_or(0) as u64, ..Cost::default() }.time(rate, 1.0)
}

/// The metadata of the request, except that [`operation`](RequestContext::operation) is the kernel's id even if the
/// request came with an alias.
impl RequestContext for Job {
    fn operation(&self) -> &str {
        &self.kernel.info().id
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.scheduling.set_server_timeout(true);
    }

    fn deadline_is_server_timeout(&self) -> bool {
        self.scheduling.is_server_timeout()
    }

    fn share(&self) -> Option<Share> {
        self.scheduling.share()
    }

    fn expected_time(&self) -> Option<Duration> {
        self.scheduling.expected()
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    fn trace_context(&self) -> Option<&TraceContext> {
        self.trace.as_deref()
    }
}
