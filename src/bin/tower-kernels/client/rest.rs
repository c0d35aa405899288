//! Connections to a REST server, and its error responses.

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tower_kernels::error::ErrorKind;

use super::{CONNECTION, Failure, Tls};
use crate::exit::{self, Exit};

/// Maximum bytes read of an error response.
const MAX_PROBLEM: usize = 64 << 10;

/// A REST server.
pub(crate) struct RestServer {
    /// Host and port.
    authority: String,
    /// Prefix of the paths, without a slash at its end.
    prefix: String,
    tls: Option<Tls>,
}

impl RestServer {
    /// The server at a URL. Nothing is connected yet.
    pub(crate) fn new(url: &str, cacert: Option<&Path>) -> Result<Self, exit::Failure> {
        let uri: Uri = url.parse().map_err(|error| Exit::Usage.failure(format!("{url:?}: {error}")))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            let message = format!("{url:?} is not of the form http://HOST[:PORT][/PREFIX], nor with https");
            return Err(Exit::Usage.failure(message));
        };
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 }));
        let tls = Tls::new(&uri, cacert, b"http/1.1")?;
        Ok(Self { authority, prefix: uri.path().trim_end_matches('/').to_owned(), tls })
    }

    /// Host and port, for the header `host`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The request target of a route.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }

    /// Opens a connection for one request at a time, which a task of the current `LocalSet` drives.
    pub(crate) async fn connect<B>(&self) -> Result<SendRequest<B>, Failure>
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    {
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

/// Reads the problem document of our own servers, the error of the Open Inference Protocol, or the text of any other.
pub(crate) async fn problem(status: u16, body: Incoming) -> Failure {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
        detail: String,
    }
    #[derive(Deserialize)]
    struct InferenceError {
        error: String,
    }
    let body: Bytes = match Limited::new(body, MAX_PROBLEM).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Failure::from_error(CONNECTION, &*error),
    };
    if let Ok(Problem { code, detail }) = serde_json::from_slice(&body) {
        return Failure::new(code, detail);
    }
    let kind = ErrorKind::ALL.into_iter().find(|kind| kind.http_status() == status);
    match (serde_json::from_slice(&body), kind) {
        (Ok(InferenceError { error }), Some(kind)) => Failure::new(kind.code(), error),
        _ => {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            Failure::new(format!("http_{status}"), text)
        }
    }
}
