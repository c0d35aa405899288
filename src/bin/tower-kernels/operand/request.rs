//! Requests for operands over REST.

use std::error::Error;
use std::sync::Mutex;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::ext::on_informational;
use serde_json::Value;

use super::args::ServerArgs;
use super::source::Source;
use super::upload::{ReadError, Upload, UploadProgress};
use crate::client::{CONNECTION, Failure, RestServer, problem};
use crate::exit;

/// Maximum size of a response. A page of 1000 operands has less than 1 MiB unless they are sets of many tensors.
const MAX_RESPONSE: usize = 64 << 20;

/// The code of a successful response that is not of an operand: another server listens there.
pub(super) const NOT_AN_OPERAND: &str = "not_an_operand";
/// The code of a file that could not be read while it was sent.
const INVALID_ARGUMENT: &str = "invalid_argument";

type RequestBody = UnsyncBoxBody<Bytes, ReadError>;

/// A REST server with operands.
pub(super) struct Server {
    rest: RestServer,
    headers: HeaderMap,
    tenant: Option<String>,
}

impl Server {
    pub(super) fn new(args: &ServerArgs) -> Result<Self, exit::Failure> {
        let rest = RestServer::new(&args.rest, args.connection.cacert.as_deref())?;
        let mut headers = HeaderMap::new();
        for (name, value) in &args.connection.headers {
            headers.append(name, value.clone());
        }
        Ok(Self { rest, headers, tenant: args.tenant.clone() })
    }

    /// Sends a request without a body, and reads the JSON document of the response.
    pub(super) async fn call(
        &self,
        method: Method,
        route: &str,
        query: &[(&str, &str)],
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Value, Failure> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        self.send(self.request(method, route, query, headers, body)?).await
    }

    /// Uploads a value, and reads the JSON document of the response.
    pub(super) async fn put(
        &self,
        route: &str,
        query: &[(&str, &str)],
        condition: Vec<(HeaderName, HeaderValue)>,
        source: Source,
        progress: UploadProgress,
    ) -> Result<Value, Failure> {
        let mut headers = source.headers.clone();
        headers.extend(condition);
        headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
        let (upload, on_continue) = Upload::new(source, progress);
        let mut request = self.request(Method::PUT, route, query, headers, upload.boxed_unsync())?;
        let on_continue = Mutex::new(Some(on_continue));
        on_informational(&mut request, move |_| {
            let sender = on_continue.lock().ok().and_then(|mut sender| sender.take());
            if let Some(sender) = sender {
                // The receiver is gone if the body is sent already.
                let _ = sender.send(());
            }
        });
        self.send(request).await
    }

    fn request(
        &self,
        method: Method,
        route: &str,
        query: &[(&str, &str)],
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Failure> {
        let tenant = self.tenant.as_deref().map(|tenant| ("tenant", tenant));
        let query =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(query.iter().copied().chain(tenant)).finish();
        let separator = if query.is_empty() { "" } else { "?" };
        // On a raw connection the request target is a path and the host is a header.
        let target = self.rest.path(&format!("{route}{separator}{query}"));
        let mut request = Request::builder().method(method).uri(target).header(HOST, self.rest.authority()).body(body);
        if let Ok(request) = &mut request {
            request.headers_mut().extend(headers);
            for (name, value) in &self.headers {
                request.headers_mut().append(name, value.clone());
            }
        }
        request.map_err(|error| Failure::new(INVALID_ARGUMENT, error.to_string()))
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Value, Failure> {
        let mut connection = self.rest.connect().await?;
        let response = connection.send_request(request).await.map_err(|error| failure(&error))?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(problem(head.status.as_u16(), body).await);
        }
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| Failure::from_error(CONNECTION, &*error))?.to_bytes();
        let kind = head.headers.get(CONTENT_TYPE);
        match serde_json::from_slice(&body) {
            Ok(document @ Value::Object(_)) if kind.is_some_and(|kind| kind == "application/json") => Ok(document),
            _ => {
                let status = head.status;
                Err(Failure::new(
                    NOT_AN_OPERAND,
                    format!("the response, {status}, is not a JSON document: is it another server?"),
                ))
            }
        }
    }
}

/// The failure of a file that could not be read, or of the connection.
fn failure(error: &hyper::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(ReadError(message)) = this.downcast_ref() {
            return Failure::new(INVALID_ARGUMENT, message);
        }
        cause = this.source();
    }
    Failure::from_error(CONNECTION, error)
}
