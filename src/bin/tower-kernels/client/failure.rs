//! [`Failure`]: why a request to a server failed.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use tower_kernels::error::{ErrorKind, chain};

use crate::exit::Exit;

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The code of an `ErrorKind`, or one of `connection`, `client_timeout`, `not_an_output`, `not_an_operand`,
    /// `http_<status>` and `grpc_<code>`.
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
}

/// The connection could not be opened or broke.
pub(crate) const CONNECTION: &str = "connection";
/// There was no response within the client's own time limit.
pub(crate) const CLIENT_TIMEOUT: &str = "client_timeout";

impl Failure {
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// A failure with the message of an error and its causes.
    pub(crate) fn from_error(code: impl Into<Cow<'static, str>>, error: &dyn Error) -> Self {
        Self::new(code, chain(error).to_string())
    }

    /// The exit code of a program that ends with this failure.
    pub(crate) fn exit(&self) -> Exit {
        match &*self.code {
            CONNECTION => Exit::Unavailable,
            CLIENT_TIMEOUT => Exit::Deadline,
            code => ErrorKind::ALL.into_iter().find(|kind| kind.code() == code).map_or(Exit::Failed, Exit::from_kind),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message } = self;
        write!(f, "{code}: {message}")
    }
}

impl Error for Failure {}
