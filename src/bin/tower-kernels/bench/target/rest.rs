//! A server of REST: `POST /execute`, each caller on a connection of its own.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpStream;

use super::tls::Tls;
use super::{CONNECTION, Caller, Callers, Failure, no_json};
use crate::exit::Exit;

/// Of an answer that is no answer, so much is read.
const MAX_PROBLEM: usize = 64 << 10;

pub(in super::super) struct Rest(Arc<Server>);

struct Server {
    /// Host and port.
    authority: String,
    tls: Option<Tls>,
    request: Request<Full<Bytes>>,
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
        let input = serde_json::from_str(document).map_err(|error| no_json(&error))?;
        let body = serde_json::to_vec(&Document { kernel_id: kernel, input })?;
        let uri: Uri = url.parse().map_err(|error| Exit::Usage.because(format!("{url:?}: {error}")))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Exit::Usage
                .because(format!("{url:?} is not of the form http://HOST[:PORT][/PREFIX], nor with https"))
                .into());
        };
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 }));
        let tls = Tls::of(&uri, cacert, b"http/1.1")?;
        // Over one's own connection the target is a path, and the host goes into a header.
        let mut request = Request::post(format!("{}/execute", uri.path().trim_end_matches('/')))
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(headers.iter().cloned());
        Ok(Self(Arc::new(Server { authority, tls, request })))
    }
}

impl Callers for Rest {
    type Caller = RestCaller;

    async fn callers(&self, count: usize) -> Result<Vec<RestCaller>, Failure> {
        let mut callers = Vec::with_capacity(count);
        for _ in 0..count {
            callers.push(RestCaller { connection: Some(self.0.connect().await?), server: Arc::clone(&self.0) });
        }
        Ok(callers)
    }
}

impl Server {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let failed = |error: &dyn Error| {
            let Failure { code, message } = Failure::of(CONNECTION, error);
            Failure::new(code, format!("{}: {message}", self.authority))
        };
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let Some(tls) = &self.tls else {
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
            // It ends with the sender, to which it also reports what goes wrong.
            tokio::task::spawn_local(connection);
            return Ok(sender);
        };
        let stream = tls.connect(stream).await.map_err(|error| failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

pub(in super::super) struct RestCaller {
    server: Arc<Server>,
    /// `None` after a failure, or while a request is on its way: one that is given up takes its connection with it.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Caller for RestCaller {
    async fn call(&mut self) -> Result<usize, Failure> {
        let failed = |error: hyper::Error| Failure::of(CONNECTION, &error);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        // Servers close connections that are idle, or old.
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
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.map_err(failed)?.data_ref().map_or(0, Bytes::len);
        }
        self.connection = Some(connection);
        Ok(bytes)
    }
}

/// Our own servers answer with a problem document; whatever is in front of them, as it likes.
async fn problem(status: u16, body: Incoming) -> Failure {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
        detail: String,
    }
    let body = match Limited::new(body, MAX_PROBLEM).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Failure::of(CONNECTION, &*error),
    };
    match serde_json::from_slice(&body) {
        Ok(Problem { code, detail }) => Failure::new(code, detail),
        Err(_) => {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            Failure::new(format!("http_{status}"), text)
        }
    }
}
