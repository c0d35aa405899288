use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_service::Service;

use super::{Problem, RequestHead, RequestId};
use crate::error::{Classify, ErrorKind, find};
use crate::layers::timeout;
use crate::service::{KernelRequest, KernelResponse, Payload};

/// What the body of a request is.
#[derive(Debug)]
pub(crate) enum Target {
    /// The document that names the kernel, with the input and metadata.
    Document,
    /// The input of this kernel, as it is.
    Input(String),
}

/// Runs a kernel for a request of HTTP: reads the body, waits for a place to run and for the answer, all within the
/// deadline of the head, and writes the document that answers it. Dropping the future cancels the work.
///
/// # Errors
/// 413 for a body of more than `max_body` bytes, 415 where it is not JSON, 408 where it does not come in time, 400 where
/// it is malformed, and what the service's error says of itself.
pub(crate) async fn execute<S, B>(
    service: S,
    headers: &HeaderMap,
    head: RequestHead,
    request_id: &RequestId,
    target: Target,
    body: B,
    max_body: usize,
) -> Result<Bytes, Problem>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: Classify + Error + 'static,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    check_type(headers)?;
    let body = read(body, max_body, head.deadline()).await?;
    let mut request = match target {
        Target::Document => KernelRequest::from_json(body)?,
        Target::Input(kernel_id) => KernelRequest::new(kernel_id, Payload::Json(body)),
    };
    head.apply(&mut request);
    let kernel_id = request.kernel_id.clone();
    let response = timeout::oneshot(service, request).await.map_err(|error| Problem::of(&error))?;
    response.to_json(request_id.as_str(), &kernel_id).map_err(|error| Problem::of(&error))
}

/// JSON, not compressed.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Problem::unsupported_media_type("compressed bodies are not read here; send it without"));
    }
    match headers.get(CONTENT_TYPE) {
        Some(value) if value.to_str().is_ok_and(is_json) => Ok(()),
        Some(value) => Err(Problem::unsupported_media_type(format!(
            "the body is {}; send JSON with the header content-type: application/json",
            value.as_bytes().escape_ascii()
        ))),
        None => {
            Err(Problem::unsupported_media_type("the header content-type is missing; it is to be application/json"))
        }
    }
}

/// `application/json`, or a type that ends in `+json`, with whatever parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, suffix)| suffix);
    kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

async fn read<B>(body: B, max: usize, deadline: Instant) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let too_large = || Problem::new(ErrorKind::TooLarge, format!("the body is of more than {max} bytes"));
    // Refused by its own account, before the client is told to go on and send it.
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout_at(deadline.into(), Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_length_limit(&*error) => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(ErrorKind::InvalidArgument, format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::request_timeout("the body did not come within the deadline")),
    }
}

/// This limit, or one that a layer in front has set.
fn is_length_limit(error: &(dyn Error + 'static)) -> bool {
    find::<LengthLimitError>(error).is_some()
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn json_is_known_by_its_type() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.acme+json ;v=1"] {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["", "json", "text/json", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert!(!is_json(no), "{no}");
        }
    }
}
