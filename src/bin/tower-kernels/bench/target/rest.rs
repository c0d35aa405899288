//! The REST target: `POST /execute`, with one connection per client.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpStream;

use super::tls::Tls;
use super::{CONNECTION, Client, ClientFactory, Failure, NOT_AN_OUTPUT, not_json};
use crate::exit::Exit;

/// Maximum bytes read of an error response.
const MAX_PROBLEM: usize = 64 << 10;

/// `output` must begin within this many bytes of a response.
const MAX_PREFIX: usize = 1 << 10;

/// The beginning of a kernel's output in a response.
const OUTPUT: &[u8] = b"\"output\":";

pub(in super::super) struct Rest(Arc<Server>);

struct Server {
    /// Host and port.
    authority: String,
    tls: Option<Tls>,
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
        url: &str,
        kernel: &str,
        headers: &[(HeaderName, HeaderValue)],
        cacert: Option<&Path>,
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let input = serde_json::from_str(document).map_err(|error| not_json(&error))?;
        let body = serde_json::to_vec(&Document { kernel_id: kernel, input })?;
        let uri: Uri = url.parse().map_err(|error| Exit::Usage.failure(format!("{url:?}: {error}")))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Exit::Usage
                .failure(format!("{url:?} is not of the form http://HOST[:PORT][/PREFIX], nor with https"))
                .into());
        };
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 }));
        let tls = Tls::new(&uri, cacert, b"http/1.1")?;
        // On a raw connection the request target is a path and the host is a header.
        let mut request = Request::post(format!("{}/execute", uri.path().trim_end_matches('/')))
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(headers.iter().cloned());
        let (kernel, verified) = (kernel.to_owned(), AtomicBool::new(false));
        Ok(Self(Arc::new(Server { authority, tls, request, kernel, verified })))
    }
}

impl ClientFactory for Rest {
    type Client = RestClient;

    async fn clients(&self, count: usize) -> Result<Vec<RestClient>, Failure> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(RestClient { connection: Some(self.0.connect().await?), server: Arc::clone(&self.0) });
        }
        Ok(clients)
    }
}

impl Server {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let failed = |error: &dyn Error| {
            let Failure { code, message } = Failure::from_error(CONNECTION, error);
            Failure::new(code, format!("{}: {message}", self.authority))
        };
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let Some(tls) = &self.tls else {
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
            // It ends with the sender, to which it also reports errors.
            tokio::task::spawn_local(connection);
            return Ok(sender);
        };
        let stream = tls.connect(stream).await.map_err(|error| failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

pub(in super::super) struct RestClient {
    server: Arc<Server>,
    /// `None` after a failure or while a request is in flight: a dropped request closes its connection.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client for RestClient {
    async fn call(&mut self) -> Result<usize, Failure> {
        let failed = |error: hyper::Error| Failure::from_error(CONNECTION, &error);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        // Servers close idle and old connections.
        if connection.ready().await.is_err() {
            connection = self.server.connect().await?;
        }
        let response = connection.send_request(self.server.request.clone()).await.map_err(failed)?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let failure = problem(head.status.as_u16(), body).await;
            self.connection = Some(connection);
            return Err(failure);
        }
        let bytes = if self.server.verified.load(Ordering::Relaxed) {
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
            self.server.verify(&head.headers, &body)?;
            body.len()
        };
        self.connection = Some(connection);
        Ok(bytes)
    }
}

impl Server {
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

/// Reads the problem document of our own servers, or the text of any other.
async fn problem(status: u16, body: Incoming) -> Failure {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
        detail: String,
    }
    let body = match Limited::new(body, MAX_PROBLEM).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Failure::from_error(CONNECTION, &*error),
    };
    match serde_json::from_slice(&body) {
        Ok(Problem { code, detail }) => Failure::new(code, detail),
        Err(_) => {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            Failure::new(format!("http_{status}"), text)
        }
    }
}
