//! The text of an error that a client may see.

use super::{AnyError, ErrorKind, chain};
use crate::panics::LogLimit;

/// Sent instead of the text of an internal error, which may contain other clients' data, paths or details of a kernel.
const INTERNAL_ERROR: &str = "an internal error; the server's log says more about this request";

/// An error's text, split into what the client sees and what is only logged.
#[derive(Debug)]
pub(crate) struct ClientMessage {
    pub(crate) text: String,
    /// The text of an internal error. Boxed, because few errors have one.
    pub(crate) internal: Option<Box<InternalMessage>>,
}

/// The text of an internal error, which goes to the log and not to the client.
#[derive(Debug)]
pub(crate) struct InternalMessage {
    text: String,
    kernel: Option<Box<str>>,
}

impl ClientMessage {
    /// Hides the text of errors of kind [`Internal`](ErrorKind::Internal).
    pub(crate) fn new(kind: ErrorKind, text: String) -> Self {
        match kind {
            ErrorKind::Internal => {
                let internal = InternalMessage { text, kernel: None };
                Self { text: INTERNAL_ERROR.to_owned(), internal: Some(Box::new(internal)) }
            }
            _ => Self { text, internal: None },
        }
    }

    /// The text of an error and its causes.
    pub(crate) fn of(error: &impl AnyError) -> Self {
        Self::new(error.classify().kind, chain(error.as_error()).to_string())
    }
}

impl InternalMessage {
    /// Sets the kernel that is logged with the error.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn set_kernel(&mut self, id: &str) {
        self.kernel = Some(id.into());
    }

    /// Logs the error. Clients can cause many of these, so the rate of log lines is limited.
    pub(crate) fn log(&self, request_id: Option<&str>) {
        static LIMIT: LogLimit = LogLimit::new();
        let Self { text, kernel } = self;
        if let Some(suppressed) = LIMIT.next() {
            tracing::error!(request_id, kernel, error = text, suppressed, "internal error");
        }
    }
}

/// Returns the first of an error and its causes that is a `T`.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cause_that_an_error_repeats_is_written_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the service failed: {0}")]
        struct Repeats(#[source] std::num::ParseIntError);

        let cause = "a".parse::<u8>().unwrap_err();
        assert_eq!(
            crate::error::chain(&Repeats(cause)).to_string(),
            "the service failed: invalid digit found in string"
        );
    }
}
