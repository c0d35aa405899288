use std::error::Error;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::form::{Form, HEAD_LENGTH, OCTETS};
use super::read::in_time;
use super::{Problem, ResponseBody, RestState, document, read, tensors};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::timeout;
use crate::middleware::tracing::RequestScope;
use crate::panics::CatchPanic;
use crate::request::limits::check_name;
use crate::request::metadata::{HeaderFormat, RequestMetadata};
use crate::request::request_id::RequestId;
use crate::servers::body_memory::BodyMemory;
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::{HostMemory, HostReservation, InvalidInput, KernelError, KernelRequest, KernelResponse, Payload};

/// What the body of a request contains.
#[derive(Debug)]
pub(crate) enum Target {
    /// A document with kernel id, input and metadata.
    Document,
    /// The input of this kernel, as JSON or tensors.
    Input(String),
}

/// Body of a successful response, in the format of the request.
#[derive(Debug)]
pub(crate) enum Output {
    /// A document, in one or several frames.
    Json(Bytes, Vec<Bytes>),
    /// A JSON head and the tensors it describes.
    Tensors(Bytes, Vec<Bytes>),
}

/// Runs a kernel for an HTTP request: reads the body, waits for readiness, calls the service and encodes the output,
/// all before the deadline. Dropping the future cancels the work.
///
/// # Errors
/// 413 if the body or the output exceeds a limit, 503 if memory is exhausted, 415 if the body is neither JSON nor
/// tensors, 408 if it does not arrive in time, 400 if it or a header is malformed, and the error of the service.
pub(crate) async fn execute<S, B>(
    service: S,
    parts: &Parts,
    request_id: &RequestId,
    target: Target,
    body: B,
    state: &RestState,
) -> Result<Output, Problem>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let RestState { limits, registry, .. } = state;
    let metadata = RequestMetadata::from_headers(&parts.headers, &parts.extensions, HeaderFormat::Rest);
    let mut metadata = metadata.map_err(InvalidInput::from)?;
    let deadline = metadata.limit_timeout(limits.timeout);
    let over = |problem: Problem| problem.over(parts.version);
    let max_body = limits.max_request_size;
    let memory = limits.memory.reservation(limits.max_response_size);
    let scope = parts.extensions.get::<RequestScope>();
    if let (Some(scope), Target::Input(kernel_id)) = (scope, &target) {
        // Set before the body is read, so that errors of the body have it.
        scope.set_kernel(registry.id_of_alias(kernel_id).as_deref().unwrap_or(kernel_id));
    }
    let (request, requested) = match (Form::of(&parts.headers)?, target) {
        (Form::Json, target) => {
            let body = read::whole(body, max_body, deadline, &memory).await.map_err(over)?;
            let request = match target {
                Target::Document => {
                    let reading = offload(body.len() > DOCUMENT_BYTES, || KernelRequest::from_json(body));
                    in_time(deadline, reading).await??
                }
                Target::Input(kernel_id) => {
                    check_name(&kernel_id).map_err(|error| InvalidInput::new("kernel_id", error.to_string()))?;
                    KernelRequest::new(kernel_id, Payload::Json(body))
                }
            };
            (request, None)
        }
        (Form::Tensors(length), target) => {
            let body_memory = BodyMemory::of_request(&memory);
            // Boxed, as it is larger than the rest of the future, which JSON should not pay for.
            let reading = Box::pin(tensors::read(body, length, target, max_body, deadline, &body_memory));
            let (request, requested) = reading.await.map_err(over)?;
            (request, Some(requested))
        }
    };
    // The response repeats the name that the client used.
    let kernel_id = request.kernel_id.clone();
    let of_kernel = |problem: Problem| problem.of_kernel(&kernel_id);
    let (response, held) = run(service, request, metadata, scope, memory, state).await.map_err(of_kernel)?;
    match requested {
        None => {
            let problem = |error| of_kernel(Problem::of(&error));
            // A small output is copied into one frame, which costs less than sending several.
            if response.payload.byte_len().is_some_and(|bytes| bytes <= KernelResponse::SMALL) {
                let document = response.to_json(request_id.as_str(), &kernel_id);
                return document.map(|document| Output::Json(document, Vec::new())).map_err(problem);
            }
            let document = response.to_json_frames(request_id.as_str(), &kernel_id);
            let [head, output, tail] = document.map_err(problem)?;
            Ok(Output::Json(head, vec![attach(output, held.as_ref()), tail]))
        }
        Some(requested) => {
            let (head, tensors) = tensors::write(&response, request_id.as_str(), &kernel_id, &requested)?;
            let attached = tensors.into_iter().map(|tensor| attach(tensor, held.as_ref()));
            Ok(Output::Tensors(head, attached.collect()))
        }
    }
}

/// Runs a request that has been read. Returns its response, and the memory that it holds until it is sent. Dropping the
/// future cancels the work.
///
/// # Errors
/// That of the service, and 503 if there is not enough memory for the response.
pub(super) async fn run<S>(
    service: S,
    mut request: KernelRequest,
    metadata: RequestMetadata,
    scope: Option<&RequestScope>,
    memory: HostReservation,
    state: &RestState,
) -> Result<(KernelResponse, Option<HostReservation>), Problem>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError,
{
    request.apply_metadata(metadata);
    request.resolve_alias(&state.registry);
    if let Some(scope) = scope {
        scope.set_kernel(&request.kernel_id);
        request.tenant.iter().for_each(|tenant| scope.set_tenant(tenant));
    }
    request.extensions.insert(memory);
    // A panic of the service is the error of its own request and does not affect the connection.
    let mut response = match CatchPanic::new(timeout::oneshot(service, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Problem::of(&error)),
        Err(panicked) => {
            let text = format!("the service panicked: {panicked}");
            return Err(Problem::new(ErrorKind::Internal, text));
        }
    };
    let held = hold(&mut response, &state.limits.memory)?;
    Ok((response, held))
}

/// Returns the memory that a response holds until it is sent. A response that was not made for this request, such as a
/// cached one, is charged now.
fn hold(response: &mut KernelResponse, memory: &HostMemory) -> Result<Option<HostReservation>, Problem> {
    let bytes = response.payload.byte_len().unwrap_or(0);
    if bytes <= KernelResponse::SMALL || memory.max() == u64::MAX {
        return Ok(None);
    }
    if let Some(held) = response.extensions.remove::<HostReservation>() {
        return Ok(Some(held));
    }
    let held = memory.reservation(0);
    held.grow(bytes as u64).map_err(|error| Problem::of(&KernelError::from(error)))?;
    Ok(Some(held))
}

pub(super) fn attach(bytes: Bytes, held: Option<&HostReservation>) -> Bytes {
    match held {
        Some(held) if !bytes.is_empty() => held.clone().attach(bytes),
        _ => bytes,
    }
}

impl Output {
    /// Creates the response.
    pub(crate) fn into_response<B>(self, request_id: &RequestId) -> Response<B>
    where
        B: From<Bytes> + From<ResponseBody>,
    {
        match self {
            Self::Json(head, rest) if rest.is_empty() => document(StatusCode::OK, "application/json", head, request_id),
            Self::Json(head, rest) => {
                let mut response = document(StatusCode::OK, "application/json", Bytes::new(), request_id);
                *response.body_mut() = ResponseBody::in_frames(head, rest).into();
                response
            }
            Self::Tensors(head, tensors) => {
                let length = head.len();
                let mut response = Response::new(ResponseBody::in_frames(head, tensors).into());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
                headers.insert(HEAD_LENGTH, length.into());
                headers.insert(RequestId::HEADER, request_id.value().clone());
                response
            }
        }
    }
}
