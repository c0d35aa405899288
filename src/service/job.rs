//! A request that has found its kernel: what a backend is asked to run.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::codec::{Passed, decoded_size, until};
use super::erased::Input;
use super::payload::Encoding;
use super::{
    BatchKey, Cost, HostReservation, KernelError, KernelRequest, KernelResponse, Mode, Payload, PinnedMemory, Progress,
    RegisteredKernel, Typed,
};
use crate::request::Scheduling;
use crate::request::{Priority, RequestContext, Share, TraceContext};

/// Where the answer goes. It is closed once the caller has dropped its future.
pub(crate) type Reply = oneshot::Sender<Result<KernelResponse, Failed>>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: KernelError,
    /// The job, where it is whole and its pool has ended.
    pub(crate) job: Option<Box<Returned>>,
}

/// A job that its pool gives back because it has ended.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) job: Job,
    /// When the first pool accepted it.
    pub(crate) accepted: Instant,
    /// Whether its kernel's code has been begun.
    pub(crate) started: bool,
}

impl From<KernelError> for Failed {
    fn from(error: KernelError) -> Self {
        Self { error, job: None }
    }
}

/// A request that has found its kernel.
///
/// A backend is a [`Service`](tower_service::Service) of these, so a layer can stand before one device as well as before
/// the whole: it asks a job what it would ask a request.
#[derive(Debug)]
pub struct Job {
    kernel: RegisteredKernel,
    /// Empty once it has been decoded.
    payload: Payload,
    deadline: Option<Instant>,
    tenant: Option<Arc<str>>,
    trace: Option<Box<TraceContext>>,
    extensions: http::Extensions,
    input: Option<Input>,
    /// What decoding or checking has found wrong.
    failed: Option<Box<KernelError>>,
    /// When it began to wait for others to share a run with.
    joined: Option<Instant>,
    priority: Priority,
    scheduling: Scheduling,
    encoding: Encoding,
    valid: bool,
}

/// The jobs that share the run of the one whose input they are.
#[derive(Debug)]
pub(crate) struct Members(pub(super) Vec<Job>);

/// What jobs that may share a run have in common: they are of one kernel, and it says that they may.
#[derive(Clone, Debug)]
pub(crate) struct SharedRun {
    /// The number of the kernel's registration.
    kernel: u64,
    key: BatchKey,
    /// Of one of them, with its kernel, where the key is a hash.
    input: Option<(RegisteredKernel, Input)>,
}

impl PartialEq for SharedRun {
    fn eq(&self, other: &Self) -> bool {
        let alike = (self.kernel, self.key) == (other.kernel, other.key);
        alike
            && match (&self.input, &other.input) {
                (Some((kernel, input)), Some((_, other))) => kernel.shares_run(input, other),
                (None, None) => true,
                _ => false,
            }
    }
}

impl Eq for SharedRun {}

impl Hash for SharedRun {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kernel, self.key).hash(state);
    }
}

impl Job {
    pub(crate) fn new(kernel: RegisteredKernel, request: KernelRequest) -> Result<Self, KernelError> {
        if kernel.info().mode == Mode::Ring {
            return Err(KernelError::RingKernel { id: kernel.info().id.clone() });
        }
        let KernelRequest { kernel_id: _, payload, deadline, priority, tenant, trace, extensions, scheduling } =
            request;
        let encoding = payload.encoding();
        let (input, failed, joined, valid) = (None, None, None, false);
        Ok(Self {
            kernel,
            payload,
            deadline,
            tenant,
            trace,
            extensions,
            input,
            failed,
            joined,
            priority,
            scheduling,
            encoding,
            valid,
        })
    }

    /// One job that does the work of all of these, which have the same [`shared_run`](Self::shared_run). Its cost is the
    /// sum of theirs, and it matters as much and for as long as any of them.
    ///
    /// # Panics
    /// Where there are none.
    pub(crate) fn merge(jobs: Vec<Self>) -> Self {
        let kernel = jobs.first().expect("jobs to merge").kernel.clone();
        let cost = jobs.iter().filter_map(Self::cost).fold(Cost::default(), |all, one| Cost {
            bytes: all.bytes.saturating_add(one.bytes),
            operations: all.operations.saturating_add(one.operations),
            device_memory: all.device_memory.saturating_add(one.device_memory),
        });
        let priority = jobs.iter().map(|job| job.priority).max().unwrap_or_default();
        let deadline = jobs.iter().map(|job| job.deadline).collect::<Option<Vec<_>>>();
        // A run of several shares is nobody's own.
        let mut scheduling = jobs[0].scheduling;
        if jobs.iter().any(|job| job.share() != scheduling.share()) {
            scheduling.set_share(Share::COMMON);
        }
        Self {
            kernel,
            payload: Payload::Json(Bytes::new()),
            deadline: deadline.and_then(|deadlines| deadlines.into_iter().max()),
            tenant: None,
            trace: None,
            extensions: http::Extensions::new(),
            input: Some(Input { value: Typed::new(Members(jobs)), cost }),
            failed: None,
            joined: None,
            priority,
            scheduling,
            encoding: Encoding::Typed,
            valid: true,
        }
    }

    /// The jobs that this one is made of, if it is made of any.
    pub(crate) fn members(&self) -> Option<&[Self]> {
        self.input.as_ref().and_then(Input::members)
    }

    /// With which other jobs this one may share a run. `None` where its kernel has no rule for that, where it is too large
    /// to be read and checked within `bound`, where it is wrong, and where somebody watches its [`Progress`].
    pub(crate) fn shared_run(&mut self, bound: Duration) -> Option<SharedRun> {
        if self.extensions.get::<Progress>().is_some() || self.prepare(Some(bound), None).is_err() {
            return None;
        }
        let input = self.input()?;
        let key = self.kernel.batch_key(input)?;
        let input = key.is_hash.then(|| (self.kernel.clone(), input.clone()));
        self.joined = Some(Instant::now());
        Some(SharedRun { kernel: self.kernel.number(), key, input })
    }

    /// How long it has waited for others to share a run with.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.joined.map_or(Duration::ZERO, |joined| now.saturating_duration_since(joined))
    }

    /// The kernel to run.
    pub fn kernel(&self) -> &RegisteredKernel {
        &self.kernel
    }

    /// What users have added to the request.
    pub fn extensions(&self) -> &http::Extensions {
        &self.extensions
    }

    /// What it will cost; `None` until the payload has been decoded.
    pub fn cost(&self) -> Option<Cost> {
        self.input.as_ref().map(|input| input.cost)
    }

    /// What an input that has not been read yet is expected to take: to read it, and to move as many bytes.
    pub(crate) fn expected_unread(&self, time: impl FnOnce(Cost) -> Duration) -> Duration {
        let bytes = self.payload.byte_len().unwrap_or(0) as u64;
        let moved = self.cost().unwrap_or(Cost { bytes, ..Cost::default() });
        decode_time(&self.payload).saturating_add(time(moved))
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Does as much of the decoding and checking as fits into `bound`, for a thread that must not be held up. Does all
    /// of it where there is no bound. Large arrays that are copied are copied into `memory`.
    ///
    /// After an error the job is of no further use but to say so again: its payload may be gone.
    pub(crate) fn prepare(
        &mut self,
        bound: Option<Duration>,
        memory: Option<&PinnedMemory>,
    ) -> Result<(), KernelError> {
        if let Some(error) = &self.failed {
            return Err(KernelError::clone(error));
        }
        let prepared = self.prepare_once(bound, memory);
        if let Err(error) = &prepared {
            self.failed = Some(Box::new(error.clone()));
        }
        prepared
    }

    fn prepare_once(&mut self, bound: Option<Duration>, memory: Option<&PinnedMemory>) -> Result<(), KernelError> {
        let fits = |time: Duration| bound.is_none_or(|bound| time <= bound);
        let input = match &mut self.input {
            Some(input) => input,
            None if !fits(decode_time(&self.payload)) => return Ok(()),
            empty => {
                let payload = std::mem::replace(&mut self.payload, Payload::Json(Bytes::new()));
                // Twice for JSON, as an array that grows has room for as much again until it is whole.
                let held = self.extensions.get::<HostReservation>();
                let (decoded, growing) = match (held, &payload) {
                    (Some(held), Payload::Json(document)) if held.is_limited() => {
                        let decoded = decoded_size(document);
                        (decoded, decoded)
                    }
                    (Some(_), Payload::Tensors(tensors)) => (tensors.to_copy() as u64, 0),
                    _ => (0, 0),
                };
                if let Some(held) = held {
                    held.grow(decoded + growing)?;
                }
                let input = until(self.deadline, || self.kernel.read(payload, memory));
                let input = input.map_err(|Passed| KernelError::DeadlineExceeded { started: false })??;
                if let Some(held) = held {
                    held.shrink(growing);
                }
                empty.insert(input)
            }
        };
        if !self.valid && fits(Cost { bytes: input.cost.bytes, ..Cost::default() }.time(TENSOR_RATE, 1.0)) {
            self.kernel.validate(input)?;
            self.valid = true;
        }
        Ok(())
    }

    /// What the request holds of the memory of this process, where that is limited.
    pub(crate) fn memory(&self) -> Option<&HostReservation> {
        self.extensions.get()
    }

    /// Reserves the memory of this process that a run of the input takes, and its encoded output.
    ///
    /// # Errors
    /// [`KernelError::Memory`] where it cannot be had, and [`KernelError::ResponseTooLarge`] where the output is larger
    /// than the response may be, however it turns out.
    pub(crate) fn reserve_run(&self) -> Result<(), KernelError> {
        let (Some(memory), Some(input)) = (self.memory(), &self.input) else { return Ok(()) };
        let max = memory.max_response_size();
        let bytes = match self.kernel.footprint(input) {
            Some(run) if run.least_encoded(self.encoding) > max => return Err(KernelError::ResponseTooLarge { max }),
            Some(run) => run.reserved(self.encoding, max),
            None => input.cost.bytes.min(memory.memory().max() / 16),
        };
        Ok(memory.grow(bytes)?)
    }

    /// What a payload that has come out of the run goes on to hold of the memory of this process.
    /// `None` of a small one, which is about to be copied to its connection.
    pub(crate) fn split_response(&self, payload: &Payload) -> Option<HostReservation> {
        let memory = self.memory().filter(|memory| memory.is_limited())?;
        let bytes = payload.byte_len()?;
        (bytes > KernelResponse::SMALL).then(|| memory.split(bytes as u64))
    }

    /// The input, once [`prepare`](Self::prepare) has done all of its work.
    pub(crate) fn input(&self) -> Option<&Input> {
        self.input.as_ref().filter(|_| self.valid)
    }
}

/// Bytes a second on one core: JSON numbers through serde, and tensors copied into place, as those that are not aligned
/// are.
const JSON_RATE: f64 = 200e6;
const TENSOR_RATE: f64 = 5e9;

fn decode_time(payload: &Payload) -> Duration {
    let rate = match payload {
        Payload::Json(_) => JSON_RATE,
        Payload::Tensors(_) | Payload::Typed(_) => TENSOR_RATE,
    };
    Cost { bytes: payload.byte_len().unwrap_or(0) as u64, ..Cost::default() }.time(rate, 1.0)
}

/// As the request answers, but for the name: an alias counts as the kernel that it stands for.
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
