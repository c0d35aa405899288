//! Targets of the load.

mod grpc;
mod in_process;
mod payload;
mod rest;
mod tls;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use tower_kernels::error::{ErrorKind, chain};

use super::args::PayloadFormat;
use crate::exit::Exit;

/// The target of the load.
#[derive(Debug)]
pub(super) enum Destination {
    InProcess {
        kernel: String,
        format: PayloadFormat,
    },
    Rest {
        url: String,
        kernel: String,
        headers: Vec<(HeaderName, HeaderValue)>,
        cacert: Option<PathBuf>,
    },
    Grpc {
        url: String,
        kernel: String,
        format: PayloadFormat,
        headers: Vec<(HeaderName, HeaderValue)>,
        cacert: Option<PathBuf>,
        channels: usize,
    },
}

impl Destination {
    pub(super) fn kernel(&self) -> &str {
        let (Self::InProcess { kernel, .. } | Self::Rest { kernel, .. } | Self::Grpc { kernel, .. }) = self;
        kernel
    }

    pub(super) fn format(&self) -> PayloadFormat {
        match self {
            Self::InProcess { format, .. } | Self::Grpc { format, .. } => *format,
            Self::Rest { .. } => PayloadFormat::Json,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess { .. } => f.write_str("in process"),
            Self::Rest { url, .. } => write!(f, "REST at {url}"),
            Self::Grpc { url, .. } => write!(f, "gRPC at {url}"),
        }
    }
}

/// A connected target, with the input encoded.
pub(super) enum Target {
    InProcess(Box<in_process::InProcess>),
    Rest(rest::Rest),
    Grpc(Box<grpc::Grpc>),
}

pub(super) async fn connect(destination: &Destination, input: &[u8]) -> Result<Target, Box<dyn Error + Send + Sync>> {
    let document = std::str::from_utf8(input).map_err(|error| not_json(&error))?.trim_start_matches('\u{feff}');
    Ok(match destination {
        Destination::InProcess { kernel, format } => {
            Target::InProcess(Box::new(in_process::InProcess::new(kernel, *format, document)?))
        }
        Destination::Rest { url, kernel, headers, cacert } => {
            Target::Rest(rest::Rest::new(url, kernel, headers, cacert.as_deref(), document)?)
        }
        Destination::Grpc { url, kernel, format, headers, cacert, channels } => {
            let server = grpc::Server::new(url, cacert.as_deref())?;
            let target = grpc::Grpc::new(server, kernel, *format, headers, *channels, document).await?;
            Target::Grpc(Box::new(target))
        }
    })
}

fn not_json(error: &dyn Error) -> crate::exit::Failure {
    Exit::Input.failure(format!("the input is not JSON: {error}"))
}

/// Creates clients, on the thread and runtime on which they will run.
pub(super) trait ClientFactory: Sync {
    type Client: Client;

    async fn clients(&self, count: usize) -> Result<Vec<Self::Client>, Failure>;
}

/// Sends one request at a time.
pub(super) trait Client: 'static {
    /// Sends a request, waits for the whole response and returns the size of its payload. If the future is dropped, the
    /// next call starts over.
    async fn call(&mut self) -> Result<usize, Failure>;
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The code of an `ErrorKind`, or one of `connection`, `client_timeout`, `not_an_output`, `http_<status>` and
    /// `grpc_<code>`.
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

const CONNECTION: &str = "connection";
/// A successful response that is not a kernel output: another server listens there.
const NOT_AN_OUTPUT: &str = "not_an_output";
pub(super) const CLIENT_TIMEOUT: &str = "client_timeout";

impl Failure {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The exit code if the initial request fails so.
    pub(super) fn exit(&self) -> Exit {
        match &*self.code {
            CONNECTION => Exit::Unavailable,
            CLIENT_TIMEOUT => Exit::Deadline,
            code => ErrorKind::ALL.into_iter().find(|kind| kind.code() == code).map_or(Exit::Failed, Exit::from_kind),
        }
    }

    /// A failure with the message of an error and its causes.
    fn from_error(code: impl Into<Cow<'static, str>>, error: &dyn Error) -> Self {
        Self::new(code, chain(error).to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message } = self;
        write!(f, "{code}: {message}")
    }
}

impl Error for Failure {}
