//! The REST target: `POST /execute`, with one connection per client.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Client, ClientFactory, NOT_AN_OUTPUT, not_json};
use crate::client::{CONNECTION, Failure, RestServer, problem};

/// `output` must begin within this many bytes of a response.
const MAX_PREFIX: usize = 1 << 10;

/// The beginning of a kernel's output in a response.
const OUTPUT: &[u8] = b"\"output\":";

pub(in super::super) struct Rest(Arc<Shared>);

/// What all clients share.
struct Shared {
    server: RestServer,
    request: Request<Full<Bytes>>,
    kernel: String,
    /// Whether one response has been fully parsed and was an output of the kernel.
    verified: AtomicBool,
}

#[derive(Serialize)]
struct Document<'a> {
    kernel_id: &'a str,
    input: &'a RawValue,
}

impl Rest {
    pub(super) fn new(
        server: RestServer,
        kernel: &str,
        headers: &[(HeaderName, HeaderValue)],
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let input = serde_json::from_str(document).map_err(|error| not_json(&error))?;
        let body = serde_json::to_vec(&Document { kernel_id: kernel, input })?;
        // On a raw connection the request target is a path and the host is a header.
        let mut request = Request::post(server.path("/execute"))
            .header(HOST, server.authority())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(headers.iter().cloned());
        let (kernel, verified) = (kernel.to_owned(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { server, request, kernel, verified })))
    }
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
            let mut shape = Shape::default();
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
        #[derive(Deserialize)]
        struct Response<'a> {
            kernel_id: String,
            #[serde(borrow, rename = "output")]
            _output: &'a RawValue,
        }
        let mut shape = Shape::default();
        shape.add(body);
        shape.check(headers)?;
        let response: Response<'_> =
            serde_json::from_slice(body).map_err(|error| not_an_output(format!("its body does not parse: {error}")))?;
        if response.kernel_id != self.kernel {
            return Err(not_an_output(format!("it is the output of `{}`", excerpt(response.kernel_id.as_bytes()))));
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Checks a response without parsing it, which would cost more than the server needs to write it.
#[derive(Default)]
struct Shape {
    prefix: Vec<u8>,
    last: Option<u8>,
    bytes: usize,
}

impl Shape {
    fn add(&mut self, data: &[u8]) {
        let missing = MAX_PREFIX - self.prefix.len();
        self.prefix.extend_from_slice(&data[..data.len().min(missing)]);
        self.last = data.last().copied().or(self.last);
        self.bytes += data.len();
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(b"application/json") => {}
            Some(other) => return Err(not_an_output(format!("its content-type is {}", excerpt(other)))),
            None => return Err(not_an_output("it has no content-type".to_owned())),
        }
        let has_output = self.prefix.windows(OUTPUT.len()).any(|bytes| bytes == OUTPUT);
        if self.prefix.first() == Some(&b'{') && self.last == Some(b'}') && has_output {
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
