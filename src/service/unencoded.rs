//! [`Unencoded`]: an output on its way from a backend to [`KernelService`](super::KernelService), which encodes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::{Offloaded, offload};
use super::erased::Input;
use super::payload::Encoding;
use super::{Cost, Footprint, HostReservation, Job, KernelError, KernelResponse, RegisteredKernel, RunContext, Typed};
use crate::fair_queue::QueueKey;
use crate::request::CodecTimes;

/// The output of a run, to be encoded as its request asks for. It is the typed payload of a backend's response, because a
/// worker has other kernels to run and its permit is released before the output is encoded.
#[derive(Debug)]
pub(crate) struct Unencoded {
    kernel: RegisteredKernel,
    output: Typed,
    encoding: Encoding,
    footprint: Option<Footprint>,
    deadline: Option<Instant>,
    /// How long a codec thread had the input.
    decoding: Duration,
    /// The request's memory, of which a part was reserved for the encoded output.
    memory: Option<HostReservation>,
    key: QueueKey,
}

impl Unencoded {
    /// Creates the output of a run of the job on this input.
    pub(super) fn new(job: &Job, input: &Input, output: Typed, encoding: Encoding) -> Self {
        let footprint = job.kernel.footprint(input);
        let bytes = footprint.map_or(input.cost.bytes, |run| run.output);
        Self {
            kernel: job.kernel.clone(),
            output,
            encoding,
            footprint,
            deadline: job.deadline,
            decoding: job.decoding(),
            memory: job.memory().cloned(),
            key: QueueKey { expected: encode_time(bytes, encoding), ..job.queue_key() },
        }
    }

    /// Returns the output of a backend's response that is to be encoded.
    pub(super) fn of(response: &KernelResponse) -> Option<Arc<Self>> {
        response.payload.downcast()
    }

    /// Returns how long the encoding takes.
    pub(super) fn time(&self) -> Duration {
        self.key.expected
    }

    /// Encodes the output of a response, if it is not encoded yet.
    ///
    /// # Errors
    /// [`KernelError::Encode`] if it has no such encoding, [`KernelError::ResponseTooLarge`], [`KernelError::Memory`],
    /// [`KernelError::Panicked`], and where the context stops it.
    pub(super) fn encode_in(
        response: KernelResponse,
        is_cancelled: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<KernelResponse, KernelError> {
        match Self::of(&response) {
            Some(output) => output.encode(response, is_cancelled),
            None => Ok(response),
        }
    }

    /// Puts the encoded output into the response, of which a large one goes on to hold its part of the request's memory.
    fn encode(
        &self,
        response: KernelResponse,
        is_cancelled: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<KernelResponse, KernelError> {
        let context = RunContext::new(is_cancelled, self.deadline).with_memory(self.memory.as_ref());
        let payload = self.kernel.encode(&self.output, self.encoding, self.footprint, &context)?;
        let memory = self.memory.as_ref().filter(|memory| memory.is_limited());
        let large = payload.byte_len().filter(|bytes| *bytes > KernelResponse::SMALL);
        let held = memory.zip(large).map(|(memory, bytes)| memory.split(bytes as u64));
        Ok(KernelResponse { payload, ..response }.with_memory(held))
    }

    /// Encodes the output on this thread.
    pub(super) fn encode_here(&self, response: KernelResponse) -> Result<KernelResponse, KernelError> {
        Ok(self.with_times(self.encode(response, None)?, Duration::ZERO))
    }

    /// Encodes the output on a codec thread.
    pub(super) fn offload(
        self: Arc<Self>,
        response: KernelResponse,
    ) -> Result<Offloaded<Result<KernelResponse, KernelError>>, KernelError> {
        let offloaded = Instant::now();
        offload(self.key, move |cancelled| {
            let response = self.encode(response, Some(&|| cancelled.is_cancelled()))?;
            Ok(self.with_times(response, offloaded.elapsed()))
        })
    }

    /// Puts the times of the codec threads into the response, if they had the input or the output.
    fn with_times(&self, mut response: KernelResponse, encoding: Duration) -> KernelResponse {
        if !(self.decoding + encoding).is_zero() {
            response.execution.set_codec_times(CodecTimes { decoding: self.decoding, encoding });
        }
        response
    }
}

/// Bytes of arrays that one core writes as JSON in a second.
const JSON_RATE: f64 = 100e6;
/// Bytes of arrays that one core copies into tensors in a second. Most are not copied.
const TENSOR_RATE: f64 = 5e9;

fn encode_time(bytes: u64, encoding: Encoding) -> Duration {
    let rate = match encoding {
        Encoding::Json => JSON_RATE,
        Encoding::Tensors | Encoding::Typed => TENSOR_RATE,
    };
    Cost { bytes, ..Cost::default() }.time(rate, 1.0)
}
