//! A request that has found its kernel: what a backend is asked to run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::erased::Input;
use super::payload::Encoding;
use super::{
    Cost, KernelError, KernelRequest, KernelResponse, Mode, Payload, PinnedMemory, Priority, RegisteredKernel,
    RequestContext, TraceContext,
};

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
    /// Its payload is empty once it has been decoded.
    request: KernelRequest,
    encoding: Encoding,
    input: Option<Input>,
    valid: bool,
}

impl Job {
    pub(crate) fn new(kernel: RegisteredKernel, request: KernelRequest) -> Result<Self, KernelError> {
        if kernel.info().mode == Mode::Ring {
            return Err(KernelError::RingKernel { id: kernel.info().id.clone() });
        }
        Ok(Self { kernel, encoding: request.payload.encoding(), request, input: None, valid: false })
    }

    /// The kernel to run.
    pub fn kernel(&self) -> &RegisteredKernel {
        &self.kernel
    }

    /// What users have added to the request.
    pub fn extensions(&self) -> &http::Extensions {
        &self.request.extensions
    }

    /// What it will cost; `None` until the payload has been decoded.
    pub fn cost(&self) -> Option<Cost> {
        self.input.as_ref().map(|input| input.cost)
    }

    /// What an input that has not been read yet is expected to take: to read it, and to move as many bytes.
    pub(crate) fn expected_unread(&self, time: impl FnOnce(Cost) -> Duration) -> Duration {
        let bytes = self.request.payload.byte_len().unwrap_or(0) as u64;
        let moved = self.cost().unwrap_or(Cost { bytes, ..Cost::default() });
        decode_time(&self.request.payload).saturating_add(time(moved))
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Does as much of the decoding and checking as fits into `bound`, for a thread that must not be held up. Does all
    /// of it where there is no bound. Large arrays that are copied are copied into `memory`.
    ///
    /// After an error the job is of no further use: its payload may be gone.
    pub(crate) fn prepare(
        &mut self,
        bound: Option<Duration>,
        memory: Option<&PinnedMemory>,
    ) -> Result<(), KernelError> {
        let fits = |time: Duration| bound.is_none_or(|bound| time <= bound);
        let input = match &mut self.input {
            Some(input) => input,
            None if !fits(decode_time(&self.request.payload)) => return Ok(()),
            empty => {
                let payload = std::mem::replace(&mut self.request.payload, Payload::Json(Bytes::new()));
                empty.insert(self.kernel.code().decode(payload, memory)?)
            }
        };
        if !self.valid && fits(Cost { bytes: input.cost.bytes, ..Cost::default() }.time(TENSOR_RATE, 1.0)) {
            self.kernel.code().validate(input)?;
            self.valid = true;
        }
        Ok(())
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
        self.request.deadline()
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.request.set_deadline(deadline);
    }

    fn priority(&self) -> Priority {
        self.request.priority()
    }

    fn tenant(&self) -> Option<&Arc<str>> {
        self.request.tenant()
    }

    fn trace_context(&self) -> Option<&TraceContext> {
        self.request.trace_context()
    }
}
