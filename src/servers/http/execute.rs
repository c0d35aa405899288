use std::error::Error;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::form::{Form, HEAD_LENGTH, OCTETS};
use super::read::in_time;
use super::{Limits, Problem, ResponseBody, document, read, tensors};
use crate::error::{AnyError, ErrorKind};
use crate::middleware::timeout;
use crate::middleware::tracing::RequestScope;
use crate::panics::CatchPanic;
use crate::request::limits::check_name;
use crate::request::metadata::{HeaderFormat, RequestMetadata};
use crate::request::request_id::RequestId;
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::{HostMemory, HostReservation, InvalidInput, KernelError, KernelRequest, KernelResponse, Payload};

/// What the body of a request is.
#[derive(Debug)]
pub(crate) enum Target {
    /// The document that names the kernel, with the input and metadata.
    Document,
    /// The input of this kernel: in JSON as it is, and as tensors with the head that describes them.
    Input(String),
}

/// What answers a request, in its form.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A document, in one piece or several.
    Json(Bytes, Vec<Bytes>),
    /// A head, and the tensors that it describes.
    Tensors(Bytes, Vec<Bytes>),
}

/// Runs a kernel for a request of HTTP: reads the body, waits for a place to run and for the answer, all within the
/// deadline of the head, and writes what answers it. Dropping the future cancels the work.
///
/// # Errors
/// 413 for a body or an output that is larger than the limits say, 503 where the memory is used up, 415 where it is neither JSON nor tensors, 408 where it does not come in
/// time, 400 where it is malformed, and what the service's error says of itself.
pub(crate) async fn execute<S, B>(
    service: S,
    parts: &Parts,
    request_id: &RequestId,
    target: Target,
    body: B,
    limits: &Limits,
) -> Result<Answer, Problem>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let metadata = RequestMetadata::from_headers(&parts.headers, &parts.extensions, HeaderFormat::Rest);
    let mut metadata = metadata.map_err(InvalidInput::from)?;
    let deadline = metadata.limit_timeout(limits.timeout);
    let over = |problem: Problem| problem.over(parts.version);
    let max_body = limits.max_request_size;
    let memory = limits.memory.reservation(limits.max_response_size);
    let scope = parts.extensions.get::<RequestScope>();
    if let (Some(scope), Target::Input(kernel_id)) = (scope, &target) {
        // Known before the body is read, and what is wrong with that.
        scope.set_kernel(kernel_id);
    }
    let (mut request, asked) = match (Form::of(&parts.headers)?, target) {
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
            // In a box, as it is larger than all the rest, which JSON is not to pay for.
            let reading = Box::pin(tensors::read(body, length, target, max_body, deadline, &memory));
            let (request, asked) = reading.await.map_err(over)?;
            (request, Some(asked))
        }
    };
    request.apply_metadata(metadata);
    if let Some(scope) = scope {
        scope.set_kernel(&request.kernel_id);
        request.tenant.iter().for_each(|tenant| scope.set_tenant(tenant));
    }
    request.extensions.insert(memory);
    let kernel_id = request.kernel_id.clone();
    // A service that panics is an answer to its own request, and the connection's other requests go on.
    let mut response = match CatchPanic::new(timeout::oneshot(service, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Problem::of(&error).of_kernel(&kernel_id)),
        Err(panicked) => {
            let text = format!("the service panicked: {panicked}");
            return Err(Problem::new(ErrorKind::Internal, text).of_kernel(&kernel_id));
        }
    };
    let held = hold(&mut response, &limits.memory)?;
    match asked {
        None => {
            let problem = |error| Problem::of(&error).of_kernel(&kernel_id);
            // Copied into one piece while that costs less than to send several.
            if response.payload.byte_len().is_some_and(|bytes| bytes <= KernelResponse::SMALL) {
                let document = response.to_json(request_id.as_str(), &kernel_id);
                return document.map(|document| Answer::Json(document, Vec::new())).map_err(problem);
            }
            let document = response.to_json_frames(request_id.as_str(), &kernel_id);
            let [head, output, tail] = document.map_err(problem)?;
            Ok(Answer::Json(head, vec![attach(output, held.as_ref()), tail]))
        }
        Some(asked) => {
            let (head, tensors) = tensors::write(&response, request_id.as_str(), &kernel_id, &asked)?;
            let attached = tensors.into_iter().map(|tensor| attach(tensor, held.as_ref()));
            Ok(Answer::Tensors(head, attached.collect()))
        }
    }
}

/// What a response holds until it is sent. One that was not made for this request, as the cache's are, holds memory from
/// now on.
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

fn attach(bytes: Bytes, held: Option<&HostReservation>) -> Bytes {
    match held {
        Some(held) if !bytes.is_empty() => held.clone().attach(bytes),
        _ => bytes,
    }
}

impl Answer {
    /// The response that brings it.
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
