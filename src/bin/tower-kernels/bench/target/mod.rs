//! What the load goes to.

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

use super::args::Form;
use crate::exit::Exit;

/// What the load is to go to.
#[derive(Debug)]
pub(super) enum Destination {
    InProcess {
        kernel: String,
        form: Form,
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
        form: Form,
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

    pub(super) fn form(&self) -> Form {
        match self {
            Self::InProcess { form, .. } | Self::Grpc { form, .. } => *form,
            Self::Rest { .. } => Form::Json,
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

/// What the load goes to, with the input in the form in which it is sent.
pub(super) enum Target {
    InProcess(Box<in_process::InProcess>),
    Rest(rest::Rest),
    Grpc(Box<grpc::Grpc>),
}

pub(super) async fn connect(destination: &Destination, input: &[u8]) -> Result<Target, Box<dyn Error + Send + Sync>> {
    let document = std::str::from_utf8(input).map_err(|error| no_json(&error))?.trim_start_matches('\u{feff}');
    Ok(match destination {
        Destination::InProcess { kernel, form } => {
            Target::InProcess(Box::new(in_process::InProcess::new(kernel, *form, document)?))
        }
        Destination::Rest { url, kernel, headers, cacert } => {
            Target::Rest(rest::Rest::new(url, kernel, headers, cacert.as_deref(), document)?)
        }
        Destination::Grpc { url, kernel, form, headers, cacert, channels } => {
            let server = grpc::Server::new(url, cacert.as_deref())?;
            let target = grpc::Grpc::new(server, kernel, *form, headers, *channels, document).await?;
            Target::Grpc(Box::new(target))
        }
    })
}

fn no_json(error: &dyn Error) -> crate::exit::Failure {
    Exit::Input.because(format!("the input is not JSON: {error}"))
}

/// Makes callers, on the thread and the runtime that they will call from.
pub(super) trait Callers: Sync {
    type Caller: Caller;

    async fn callers(&self, count: usize) -> Result<Vec<Self::Caller>, Failure>;
}

/// Sends one request at a time.
pub(super) trait Caller: 'static {
    /// Sends a request and waits for the whole answer, whose payload has so many bytes. Dropped half-way, the next call
    /// starts afresh.
    async fn call(&mut self) -> Result<usize, Failure>;
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The code of the crate's own table of errors, or one of `connection`, `client_timeout`, `not_an_output`,
    /// `http_<status>` and `grpc_<code>` where it does not come from there.
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

const CONNECTION: &str = "connection";
/// A success that is not the output of the kernel: something else listens there.
const NOT_AN_OUTPUT: &str = "not_an_output";
pub(super) const CLIENT_TIMEOUT: &str = "client_timeout";

impl Failure {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// What the program ends with where this keeps it from measuring.
    pub(super) fn exit(&self) -> Exit {
        match &*self.code {
            CONNECTION => Exit::Unavailable,
            CLIENT_TIMEOUT => Exit::Deadline,
            code => ErrorKind::ALL.into_iter().find(|kind| kind.code() == code).map_or(Exit::Failed, Exit::of),
        }
    }

    /// An error and its causes, which say what it does not.
    fn of(code: impl Into<Cow<'static, str>>, error: &dyn Error) -> Self {
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
