//! A request that has found its kernel: what a backend is asked to run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::erased::Input;
use super::payload::Encoding;
use super::{
    Cost, KernelError, KernelRequest, KernelResponse, Mode, Payload, Priority, RegisteredKernel, RequestContext,
    TraceContext,
};

/// Where the answer goes. It is closed once the caller has dropped its future.
pub(crate) type Reply = oneshot::Sender<Result<KernelResponse, KernelError>>;

/// A request that has found its kernel.
///
/// A backend is a [`Service`](tower_service::Service) of these, so a layer can stand before one device as well as before
/// the whole: it asks a job what it would ask a request.
#[derive(Debug)]
pub struct Job {
    kernel: RegisteredKernel,
    input: Stage,
    encoding: Encoding,
    deadline: Option<Instant>,
    priority: Priority,
    tenant: Option<Arc<str>>,
    trace: Option<Box<TraceContext>>,
}

#[derive(Debug)]
enum Stage {
    /// `None` only while it is being decoded, or where that failed.
    Encoded(Option<Payload>),
    Decoded {
        input: Input,
        valid: bool,
    },
}

impl Job {
    pub(crate) fn new(kernel: RegisteredKernel, request: KernelRequest) -> Result<Self, KernelError> {
        if kernel.info().mode == Mode::Ring {
            return Err(KernelError::RingKernel { id: kernel.info().id.clone() });
        }
        Ok(Self {
            kernel,
            encoding: request.payload.encoding(),
            input: Stage::Encoded(Some(request.payload)),
            deadline: request.deadline,
            priority: request.priority,
            tenant: request.tenant,
            trace: request.trace,
        })
    }

    /// The kernel to run.
    pub fn kernel(&self) -> &RegisteredKernel {
        &self.kernel
    }

    /// What it will cost; `None` until the payload has been decoded.
    pub fn cost(&self) -> Option<Cost> {
        match &self.input {
            Stage::Encoded(_) => None,
            Stage::Decoded { input, .. } => Some(input.cost),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Does as much of the decoding and checking as fits into `bound`, for a thread that must not be held up. Does all
    /// of it where there is no bound.
    pub(crate) fn prepare(&mut self, bound: Option<Duration>) -> Result<(), KernelError> {
        let fits = |time: Duration| bound.is_none_or(|bound| time <= bound);
        if let Stage::Encoded(payload) = &mut self.input {
            if !payload.as_ref().is_some_and(|payload| fits(decode_time(payload))) {
                return match payload {
                    Some(_) => Ok(()),
                    None => Err(KernelError::Encode("the payload was taken by a decode that failed".to_owned())),
                };
            }
            if let Some(payload) = payload.take() {
                let input = self.kernel.code().decode(payload)?;
                self.input = Stage::Decoded { input, valid: false };
            }
        }
        if let Stage::Decoded { input, valid } = &mut self.input
            && !*valid
            && fits(Cost { bytes: input.cost.bytes, ..Cost::default() }.time(TENSOR_RATE, 1.0))
        {
            self.kernel.code().validate(input)?;
            *valid = true;
        }
        Ok(())
    }

    /// The input, once [`prepare`](Self::prepare) has done all of its work.
    pub(crate) fn input(&self) -> Option<&Input> {
        match &self.input {
            Stage::Decoded { input, valid: true } => Some(input),
            _ => None,
        }
    }
}

/// Bytes a second on one core: JSON numbers through serde, and tensors copied into place.
const JSON_RATE: f64 = 200e6;
const TENSOR_RATE: f64 = 5e9;

fn decode_time(payload: &Payload) -> Duration {
    let rate = match payload {
        Payload::Json(_) => JSON_RATE,
        Payload::Tensors(_) | Payload::Typed(_) => TENSOR_RATE,
    };
    Cost { bytes: payload.byte_len().unwrap_or(0) as u64, ..Cost::default() }.time(rate, 1.0)
}

impl RequestContext for Job {
    fn operation(&self) -> &str {
        &self.kernel.info().id
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
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
