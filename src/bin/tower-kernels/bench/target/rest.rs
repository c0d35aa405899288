//! The REST targets: `POST /execute`, or inference with a model of the Open Inference Protocol, with JSON or tensors and one
//! connection per client.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::LocalSet;
use tower_kernels::service::Tensors;

use super::super::args::PayloadFormat;
use super::inference::{self, TensorMetadata, datatype};
use super::payload::tensors;
use super::{Client, ClientFactory, NOT_AN_OUTPUT, not_json};
use crate::client::{CONNECTION, Failure, RestServer, problem};

/// The output must begin within this many bytes of a response.
const MAX_PREFIX: usize = 1 << 10;

/// The length of the JSON before the tensors of a body.
const HEAD_LENGTH: &str = "inference-header-content-length";

pub(in super::super) struct Rest(Arc<Shared>);

/// What all clients share.
struct Shared {
    server: RestServer,
    request: Request<Full<Bytes>>,
    kernel: String,
    format: Format,
    /// Whether one response has been fully parsed and was an output of the kernel.
    verified: AtomicBool,
}

/// What the responses look like.
struct Format {
    content_type: &'static str,
    /// The field with the kernel's id or the name of the model.
    name: &'static str,
    /// The beginning of an output.
    output: &'static [u8],
    /// The end of a response, if it is always the same.
    end: Option<u8>,
}

const JSON: Format =
    Format { content_type: "application/json", name: "kernel_id", output: b"\"output\":", end: Some(b'}') };
const TENSORS: Format =
    Format { content_type: "application/octet-stream", name: "kernel_id", output: b"\"outputs\":", end: None };
/// The same of the Open Inference Protocol.
const MODEL_JSON: Format = Format { name: "model_name", output: b"\"outputs\":", ..JSON };
const MODEL_TENSORS: Format = Format { name: "model_name", ..TENSORS };

#[derive(Serialize)]
struct Document<'a> {
    kernel_id: &'a str,
    input: &'a RawValue,
}

impl Rest {
    pub(super) async fn new(
        server: RestServer,
        kernel: &str,
        format: PayloadFormat,
        headers: &[(HeaderName, HeaderValue)],
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let post = addressed(&server, Request::post(server.path("/execute")), headers);
        let (format, post, body) = match format {
            PayloadFormat::Json => {
                let input = serde_json::from_str(document).map_err(|error| not_json(&error))?;
                (JSON, post, serde_json::to_vec(&Document { kernel_id: kernel, input })?)
            }
            // JSON has no number types; they are in the kernel's schema.
            PayloadFormat::Tensors | PayloadFormat::Typed => {
                let schema = input_schema(&server, kernel, headers).await?;
                let (head_length, body) = tensor_body(kernel, &tensors(&schema, document)?)?;
                (TENSORS, post.header(HEAD_LENGTH, head_length), body)
            }
        };
        let request = post.header(CONTENT_TYPE, format.content_type).body(Full::new(Bytes::from(body)))?;
        Ok(Self::of(server, request, kernel, format))
    }

    /// A target that speaks the Open Inference Protocol.
    pub(super) async fn of_model(
        server: RestServer,
        model: &str,
        format: PayloadFormat,
        headers: &[(HeaderName, HeaderValue)],
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        #[derive(Deserialize)]
        struct Metadata {
            inputs: Vec<TensorMetadata>,
        }
        let path = format!("/v2/models/{model}");
        let metadata: Metadata = get(&server, &path, headers).await?;
        let is_binary = format != PayloadFormat::Json;
        let (head_length, body) = inference::body(&inference::inputs(&metadata.inputs, document)?, is_binary)?;
        let post = addressed(&server, Request::post(server.path(&format!("{path}/infer"))), headers);
        let (format, post) = match head_length {
            Some(length) => (MODEL_TENSORS, post.header(HEAD_LENGTH, length)),
            None => (MODEL_JSON, post),
        };
        let request = post.header(CONTENT_TYPE, format.content_type).body(Full::new(Bytes::from(body)))?;
        Ok(Self::of(server, request, model, format))
    }

    fn of(server: RestServer, request: Request<Full<Bytes>>, kernel: &str, format: Format) -> Self {
        let (kernel, verified) = (kernel.to_owned(), AtomicBool::new(false));
        Self(Arc::new(Shared { server, request, kernel, format, verified }))
    }
}

/// Adds the host and the headers of all requests. On a raw connection the request target is a path and the host is a header.
fn addressed(server: &RestServer, request: Builder, headers: &[(HeaderName, HeaderValue)]) -> Builder {
    let request = request.header(HOST, server.authority());
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// Gets the JSON Schema of a kernel's input from the server.
async fn input_schema(
    server: &RestServer,
    kernel: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
    #[derive(Deserialize)]
    struct Description {
        input_schema: serde_json::Value,
    }
    let description: Description = get(server, &format!("/kernels/{kernel}"), headers).await?;
    Ok(description.input_schema)
}

/// Gets the description of a kernel or a model.
async fn get<T: DeserializeOwned>(
    server: &RestServer,
    route: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let request = addressed(server, Request::get(server.path(route)), headers).body(Full::new(Bytes::new()))?;
    let failed = |error: hyper::Error| Failure::from_error(CONNECTION, &error);
    // The task of a connection is local.
    let local = LocalSet::new();
    let response = local.run_until(async {
        let mut connection = server.connect().await?;
        let (head, body) = connection.send_request(request).await.map_err(failed)?.into_parts();
        if head.status.is_success() {
            Ok(body.collect().await.map_err(failed)?.to_bytes())
        } else {
            Err(problem(head.status.as_u16(), body).await)
        }
    });
    let description = serde_json::from_slice(&response.await?);
    Ok(description.map_err(|error| not_an_output(format!("the description of the kernel does not parse: {error}")))?)
}

/// Writes a body of tensors: the length of its JSON head, and the head and the tensors.
fn tensor_body(kernel: &str, tensors: &Tensors) -> Result<(usize, Vec<u8>), serde_json::Error> {
    let inputs: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let parameters = json!({ "binary_data_size": tensor.data().len() });
            json!({ "name": name, "datatype": datatype(tensor.dtype()), "shape": tensor.shape(), "parameters": parameters })
        })
        .collect();
    let mut body = serde_json::to_vec(&json!({ "kernel_id": kernel, "inputs": inputs }))?;
    let head_length = body.len();
    tensors.iter().for_each(|(_, tensor)| body.extend_from_slice(tensor.data()));
    Ok((head_length, body))
}

impl ClientFactory for Rest {
    type Client = RestClient;

    async fn clients(&self, count: usize) -> Result<Vec<RestClient>, Failure> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(RestClient { connection: Some(self.0.server.connect().await?), shared: Arc::clone(&self.0) });
        }
        Ok(clients)
    }
}

pub(in super::super) struct RestClient {
    shared: Arc<Shared>,
    /// `None` after a failure or while a request is in flight: a dropped request closes its connection.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client for RestClient {
    async fn call(&mut self) -> Result<usize, Failure> {
        let failed = |error: hyper::Error| Failure::from_error(CONNECTION, &error);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shared.server.connect().await?,
        };
        // Servers close idle and old connections.
        if connection.ready().await.is_err() {
            connection = self.shared.server.connect().await?;
        }
        let response = connection.send_request(self.shared.request.clone()).await.map_err(failed)?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let failure = problem(head.status.as_u16(), body).await;
            self.connection = Some(connection);
            return Err(failure);
        }
        let bytes = if self.shared.verified.load(Ordering::Relaxed) {
            let mut shape = Shape::new(&self.shared.format);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(failed)?.into_data() {
                    shape.add(&data);
                }
            }
            shape.check(&head.headers)?;
            shape.bytes
        } else {
            let body = body.collect().await.map_err(failed)?.to_bytes();
            self.shared.verify(&head.headers, &body)?;
            body.len()
        };
        self.connection = Some(connection);
        Ok(bytes)
    }
}

impl Shared {
    /// Fully parses a response, as any server can return 200.
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
        let mut shape = Shape::new(&self.format);
        shape.add(body);
        shape.check(headers)?;
        let unparsed = |error| not_an_output(format!("its body does not parse: {error}"));
        let json = match headers.get(HEAD_LENGTH) {
            None => body,
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse().ok());
                length.and_then(|length: usize| body.get(..length)).unwrap_or_default()
            }
        };
        let fields: HashMap<&str, &RawValue> = serde_json::from_slice(json).map_err(unparsed)?;
        let name = fields.get(self.format.name).and_then(|name| serde_json::from_str::<String>(name.get()).ok());
        if name.as_ref() != Some(&self.kernel) {
            let name = name.unwrap_or_default();
            return Err(not_an_output(format!("it is the output of `{}`", excerpt(name.as_bytes()))));
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Checks a response without parsing it, which would cost more than the server needs to write it.
struct Shape<'a> {
    format: &'a Format,
    prefix: Vec<u8>,
    last: Option<u8>,
    bytes: usize,
}

impl<'a> Shape<'a> {
    fn new(format: &'a Format) -> Self {
        Self { format, prefix: Vec::new(), last: None, bytes: 0 }
    }

    fn add(&mut self, data: &[u8]) {
        let missing = MAX_PREFIX - self.prefix.len();
        self.prefix.extend_from_slice(&data[..data.len().min(missing)]);
        self.last = data.last().copied().or(self.last);
        self.bytes += data.len();
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(expected) if expected == self.format.content_type.as_bytes() => {}
            Some(other) => return Err(not_an_output(format!("its content-type is {}", excerpt(other)))),
            None => return Err(not_an_output("it has no content-type".to_owned())),
        }
        let Format { output, end, .. } = *self.format;
        let has_output = self.prefix.windows(output.len()).any(|bytes| bytes == output);
        if self.prefix.first() == Some(&b'{') && end.is_none_or(|end| self.last == Some(end)) && has_output {
            return Ok(());
        }
        Err(not_an_output(format!("its {} bytes begin with {:?}", self.bytes, excerpt(&self.prefix))))
    }
}

fn not_an_output(why: String) -> Failure {
    Failure::new(NOT_AN_OUTPUT, format!("the response is not the output of a kernel: {why}"))
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}
