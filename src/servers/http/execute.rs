use std::error::Error;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::form::{Form, HEAD_LENGTH, OCTETS};
use super::read::in_time;
use super::{Problem, RequestHead, RequestId, ResponseBody, document, read, tensors};
use crate::error::{Classify, ErrorKind};
use crate::layers::timeout;
use crate::panics::CatchPanic;
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::limits::check_name;
use crate::service::{Invalid, KernelRequest, KernelResponse, Payload};

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
    /// A document.
    Json(Bytes),
    /// A head, and the tensors that it describes.
    Tensors(Bytes, Vec<Bytes>),
}

/// Runs a kernel for a request of HTTP: reads the body, waits for a place to run and for the answer, all within the
/// deadline of the head, and writes what answers it. Dropping the future cancels the work.
///
/// # Errors
/// 413 for a body of more than `max_body` bytes, 415 where it is neither JSON nor tensors, 408 where it does not come in
/// time, 400 where it is malformed, and what the service's error says of itself.
pub(crate) async fn execute<S, B>(
    service: S,
    parts: &Parts,
    head: RequestHead,
    request_id: &RequestId,
    target: Target,
    body: B,
    max_body: usize,
) -> Result<Answer, Problem>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: Classify + Error + 'static,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let over = |problem: Problem| problem.over(parts.version);
    let (mut request, asked) = match (Form::of(&parts.headers)?, target) {
        (Form::Json, target) => {
            let body = read::whole(body, max_body, head.deadline()).await.map_err(over)?;
            let request = match target {
                Target::Document => {
                    let reading = offload(body.len() > DOCUMENT_BYTES, || KernelRequest::from_json(body));
                    in_time(head.deadline(), reading).await??
                }
                Target::Input(kernel_id) => {
                    check_name(&kernel_id).map_err(|error| Invalid::new("kernel_id", error.to_string()))?;
                    KernelRequest::new(kernel_id, Payload::Json(body))
                }
            };
            (request, None)
        }
        (Form::Tensors(length), target) => {
            // In a box, as it is larger than all the rest, which JSON is not to pay for.
            let reading = Box::pin(tensors::read(body, length, target, max_body, head.deadline()));
            let (request, asked) = reading.await.map_err(over)?;
            (request, Some(asked))
        }
    };
    head.apply(&mut request);
    let kernel_id = request.kernel_id.clone();
    // A service that panics is an answer to its own request, and the connection's other requests go on.
    let response = match CatchPanic::new(timeout::oneshot(service, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Problem::of(&error).of_kernel(&kernel_id)),
        Err(panicked) => {
            let text = format!("the service panicked: {panicked}");
            return Err(Problem::new(ErrorKind::Internal, text).of_kernel(&kernel_id));
        }
    };
    match asked {
        None => {
            let document = response.to_json(request_id.as_str(), &kernel_id);
            document.map(Answer::Json).map_err(|error| Problem::of(&error).of_kernel(&kernel_id))
        }
        Some(asked) => {
            let (head, tensors) = tensors::write(&response, request_id.as_str(), &kernel_id, &asked)?;
            Ok(Answer::Tensors(head, tensors))
        }
    }
}

impl Answer {
    /// The response that brings it.
    pub(crate) fn into_response<B>(self, request_id: &RequestId) -> Response<B>
    where
        B: From<Bytes> + From<ResponseBody>,
    {
        match self {
            Self::Json(body) => document(StatusCode::OK, "application/json", body, request_id),
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
