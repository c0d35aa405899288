//! The Open Inference Protocol over REST: inference requests as JSON and with the
//! [binary data extension](https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
//! The mapping to kernels is in [`inference`](crate::servers::inference).
//!
//! Tensors are copied as often as in the format of `/execute`, whose reader this uses: once on the way in, never on the
//! way out.
//!
//! Bodies may be compressed with gzip or deflate. Responses in JSON are compressed with gzip if the client accepts it;
//! binary ones are not, as numbers hardly shrink, and clients such as aiohttp accept gzip unless told otherwise.

mod compression;
mod documents;
mod request;
mod response;

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use self::compression::Encoding;
pub(super) use self::documents::{
    InferenceError, ModelConfig, ModelMetadata, ModelReady, ModelStatisticsPage, RegionEntry, RegionRequest,
    RepositoryEntry, RepositoryQuery, RepositoryRequest, ServerLive, ServerMetadata, ServerReady,
};
pub(super) use self::request::Document as InferenceRequest;
use self::request::Requested;
pub(super) use self::response::Document as InferenceResponse;
use super::execute::{Output, attach, run};
use super::form::optional_head_length;
use super::read::{in_time, rejected};
use super::tensors::{Lengths, read_with};
use super::{Problem, ResponseBody, RestState, document, read};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::tracing::RequestScope;
use crate::request::metadata::{HeaderFormat, RequestMetadata};
use crate::request::request_id::RequestId;
use crate::servers::body_memory::BodyMemory;
use crate::servers::inference::{Model, RegionAccess, RegionInputs, with_texts};
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::servers::sections::Sections;
use crate::service::{HostReservation, InvalidInput, KernelRequest, KernelResponse, Payload};

/// A request for inference whose body has not been read.
pub(super) struct Inference<'a, S> {
    pub(super) service: S,
    pub(super) model: Model,
    pub(super) head: &'a Parts,
    pub(super) request_id: &'a RequestId,
    pub(super) state: &'a RestState,
}

impl<S> Inference<'_, S>
where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError>,
{
    /// Reads the body, runs the kernel and encodes the outputs, all before the deadline. Returns the kernel's response
    /// too, for the statistics. Dropping the future cancels the work.
    ///
    /// # Errors
    /// 413 if the body or the output exceeds a limit, 503 if memory is exhausted, 415 if the body has an unknown encoding,
    /// 408 if it does not arrive in time, 400 if it or a header is malformed, and the error of the service.
    pub(super) async fn run<B>(self, body: B) -> Result<(Response<ResponseBody>, KernelResponse), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { service, model, head, request_id, state } = self;
        let metadata = RequestMetadata::from_headers(&head.headers, &head.extensions, HeaderFormat::Rest);
        let mut metadata = metadata.map_err(InvalidInput::from)?;
        let deadline = metadata.limit_timeout(state.limits.timeout);
        let scope = head.extensions.get::<RequestScope>();
        if let Some(scope) = scope {
            // Set before the body is read, so that errors of the body have it.
            scope.set_kernel(model.id());
        }
        let memory = state.limits.memory.reservation(state.limits.max_response_size);
        let (received_at, max) = (metadata.received_at, state.limits.max_request_size);
        let access = state.regions_for(head);
        let reader = Reader { model: &model, max, received_at, deadline, memory: &memory, access };
        // Boxed, as it is larger than the rest of the future.
        let (request, requested) =
            Box::pin(reader.read(head, body)).await.map_err(|problem| problem.over(head.version))?;
        let deadline = request.deadline.map_or(deadline, |earlier| earlier.min(deadline));
        let ran = run(service, request, metadata, scope, memory, state).await;
        let (response, held) = ran.map_err(|problem| problem.of_kernel(model.id()))?;
        let bytes = response.payload.byte_len().unwrap_or(0);
        let is_large = bytes > TYPED_JSON_BYTES && requested.has_slow_output();
        let max = state.limits.max_response_size;
        let writing = offload(is_large, move || {
            let written = response::write(&response, &model, &requested, max);
            (response, written)
        });
        let (response, written) = in_time(deadline, writing).await?;
        let (json, tensors) = written?;
        let response_body = match tensors {
            Some(tensors) => {
                let tensors = tensors.into_iter().map(|tensor| attach(tensor, held.as_ref()));
                Output::Tensors(json, tensors.collect()).into_response(request_id)
            }
            None => {
                let (json, encoding) = compression::compress(json, &head.headers).await;
                let held = hold(json.len(), state)?;
                let mut response =
                    document(StatusCode::OK, "application/json", attach(json, held.as_ref()), request_id);
                response.headers_mut().extend(encoding);
                response
            }
        };
        Ok((response_body, response))
    }
}

/// Reserves the memory of a JSON response until it is sent.
fn hold(bytes: usize, state: &RestState) -> Result<Option<HostReservation>, Problem> {
    if bytes <= KernelResponse::SMALL {
        return Ok(None);
    }
    let held = state.limits.memory.reservation(0);
    held.grow(bytes as u64).map_err(rejected)?;
    Ok(Some(held))
}

/// Reads the body of a request.
struct Reader<'a> {
    model: &'a Model,
    /// Maximum size of the body, compressed or not.
    max: usize,
    /// When the request arrived.
    received_at: Instant,
    deadline: Instant,
    memory: &'a HostReservation,
    access: RegionAccess,
}

impl Reader<'_> {
    async fn read<B>(self, head: &Parts, body: B) -> Result<(KernelRequest, Requested), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let head_length = optional_head_length(&head.headers)?;
        let Some(encoding) = Encoding::of(&head.headers)? else {
            return self.read_plain(head_length, body).await;
        };
        let before = self.memory.bytes();
        let compressed = read::whole(body, self.max, self.deadline, self.memory).await?;
        let (max, memory) = (self.max, self.memory.clone());
        let decompressing = offload(true, move || encoding.decompress(&compressed, max, &memory));
        let plain = in_time(self.deadline, decompressing).await??;
        // What was decompressed is charged again as the frame of a body.
        self.memory.shrink(self.memory.bytes() - before);
        self.read_plain(head_length, Full::new(plain)).await
    }

    async fn read_plain<B>(self, head_length: Option<usize>, body: B) -> Result<(KernelRequest, Requested), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { model, max, received_at, deadline, memory, access } = self;
        let body_memory = BodyMemory::of_request(memory);
        let model = model.clone();
        let Some(head) = head_length else {
            let json = read::whole(body, max, deadline, memory).await?;
            let bytes = json.len() as u64;
            let parsing =
                offload(json.len() > TYPED_JSON_BYTES, move || request::parse(&json, &model, received_at, &access));
            let head = in_time(deadline, parsing).await??;
            memory.shrink(bytes);
            let (mut request, mut requested) = (head.request, head.requested);
            body_memory.grow_tensors(head.inputs.iter().map(|input| input.data.bytes_here() as u64).sum())?;
            request.payload = Sections::new(head.inputs, 0, Some(0))?.finish()?.into();
            read_regions(&mut request, std::mem::take(&mut requested.regions), max, deadline, memory).await?;
            return Ok((request, requested));
        };
        let lengths = Lengths { head, max_head: max, max };
        let (mut request, mut requested) = if head == 0 {
            let length = body.size_hint().exact();
            read_with(body, lengths, move |_| request::parse_raw(length, &model), deadline, &body_memory).await?
        } else {
            let parse = move |json: Bytes| request::parse(&json, &model, received_at, &access);
            read_with(body, lengths, parse, deadline, &body_memory).await?
        };
        if !requested.texts.is_empty()
            && let Payload::Tensors(tensors) = &request.payload
        {
            request.payload = with_texts(tensors, &requested.texts)?.into();
        }
        read_regions(&mut request, std::mem::take(&mut requested.regions), max, deadline, memory).await?;
        Ok((request, requested))
    }
}

/// Adds the inputs of a request that are in shared memory, of at most `max` bytes in total.
async fn read_regions(
    request: &mut KernelRequest,
    inputs: RegionInputs,
    max: usize,
    deadline: Instant,
    memory: &HostReservation,
) -> Result<(), Problem> {
    if inputs.is_empty() {
        return Ok(());
    }
    let bytes = inputs.checked_bytes()?;
    if bytes > max as u64 {
        let detail = format!("the inputs in shared memory have {bytes} bytes, the maximum is {max}");
        return Err(Problem::new(ErrorKind::TooLarge, detail).field("inputs"));
    }
    BodyMemory::of_request(memory).grow_tensors(bytes)?;
    let sent = match std::mem::replace(&mut request.payload, Payload::json(Bytes::new())) {
        Payload::Tensors(tensors) => tensors,
        _ => return Err(Problem::new(ErrorKind::Internal, "the inputs of the request are not tensors")),
    };
    let deadline = request.deadline.map_or(deadline, |earlier| earlier.min(deadline));
    request.payload = in_time(deadline, inputs.read_into(sent, bytes)).await??.into();
    Ok(())
}
