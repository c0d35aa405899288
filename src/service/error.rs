//! Why a kernel request fails.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::HostMemoryError;
use crate::error::{Classify, ErrorKind, provide};
use crate::request::limits::{MAX_FIELD_BYTES, MAX_REASON_BYTES};
use crate::request::metadata::InvalidMetadata;
use crate::text::truncated;

/// A field of a request that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
#[non_exhaustive]
pub struct InvalidInput {
    /// Where: a path such as `edges[3][1]`, or `input` for the whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidInput {
    /// `field` is wrong because of `reason`. Both are cut where they are long, as they can repeat what a client has sent.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: truncated(field.into(), MAX_FIELD_BYTES), reason: truncated(reason.into(), MAX_REASON_BYTES) }
    }
}

impl From<InvalidMetadata> for InvalidInput {
    fn from(InvalidMetadata { field, reason }: InvalidMetadata) -> Self {
        Self::new(field, reason)
    }
}

/// Why a kernel request fails.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has this id.
    UnknownKernel {
        /// The id asked for.
        id: Cow<'static, str>,
    },
    /// The kernel is a ring kernel, and nothing here runs those.
    RingKernel {
        /// The kernel.
        id: Cow<'static, str>,
    },
    /// The kernel has no code for the backend.
    UnsupportedBackend {
        /// The kernel.
        id: Cow<'static, str>,
        /// The backend.
        backend: &'static str,
    },
    /// The input is wrong.
    InvalidInput(InvalidInput),
    /// The time was up.
    DeadlineExceeded {
        /// Whether the kernel had started.
        started: bool,
    },
    /// The caller left.
    Cancelled,
    /// The work needs more memory than there is.
    OutOfMemory {
        /// Bytes needed.
        need: u64,
        /// Bytes free when it was asked for.
        free: u64,
        /// Bytes that the device has.
        total: u64,
    },
    /// The request needs more of this process's memory than it may have, or than there is just now.
    Memory(HostMemoryError),
    /// The encoded output is larger than a response may be.
    ResponseTooLarge {
        /// The most bytes that it may have.
        max: u64,
    },
    /// The device faulted. It stays lost until a new process is started.
    DeviceLost {
        /// The device, such as `CUDA 0`.
        device: Arc<str>,
        /// The first fault seen, in the driver's words. It is for operators, and no part of the error's text, which
        /// clients are told.
        reason: Arc<str>,
    },
    /// The backend's workers are gone.
    Stopped {
        /// The backend.
        backend: &'static str,
    },
    /// The kernel panicked: its code, or that of its types. Nobody but its caller is affected. Servers do not tell
    /// their clients what it said.
    Panicked {
        /// What it said, at most a kilobyte of it.
        message: String,
    },
    /// The output cannot be written in the encoding of the request.
    Encode(String),
    /// A failure of the device that leaves it usable.
    Device(String),
    /// What the kernel itself says.
    Kernel(Arc<dyn Error + Send + Sync>),
}

impl KernelError {
    /// No kernel has this id, which is cut where it is long, as a client has sent it.
    pub(crate) fn unknown(id: impl Into<Cow<'static, str>>) -> Self {
        let id = id.into();
        let id = if id.len() > MAX_REASON_BYTES { truncated(id.into_owned(), MAX_REASON_BYTES).into() } else { id };
        Self::UnknownKernel { id }
    }

    /// A failure of the kernel's own.
    pub fn kernel(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Kernel(error.into().into())
    }
}

impl From<InvalidInput> for KernelError {
    fn from(error: InvalidInput) -> Self {
        Self::InvalidInput(error)
    }
}

impl From<HostMemoryError> for KernelError {
    fn from(error: HostMemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKernel { id } => write!(f, "no kernel has the id `{id}`"),
            Self::RingKernel { id } => write!(
                f,
                "`{id}` is a ring kernel: it stays resident and exchanges messages, so it needs a ring runtime and cannot \
                 be executed as a request"
            ),
            Self::UnsupportedBackend { id, backend } => write!(f, "`{id}` has no code for {backend}"),
            Self::InvalidInput(_) => f.write_str("the input is invalid"),
            Self::DeadlineExceeded { started: true } => f.write_str("the deadline passed while the kernel ran"),
            Self::DeadlineExceeded { started: false } => f.write_str("the deadline passed before the kernel started"),
            Self::Cancelled => f.write_str("the caller left"),
            Self::OutOfMemory { need, total, free } => {
                write!(f, "{need} bytes of device memory are needed and {free} of {total} are free")
            }
            Self::Memory(error) => error.fmt(f),
            Self::ResponseTooLarge { max } => {
                write!(f, "the response is of more than {max} bytes, which is the most that it may have")
            }
            Self::DeviceLost { device, .. } => write!(f, "{device} is lost until this process is restarted"),
            Self::Stopped { backend } => write!(f, "the {backend} backend has stopped"),
            Self::Panicked { message } => write!(f, "the kernel panicked: {message}"),
            Self::Encode(reason) => write!(f, "the output cannot be encoded: {reason}"),
            Self::Device(reason) => write!(f, "the device refused: {reason}"),
            Self::Kernel(_) => f.write_str("the kernel failed"),
        }
    }
}

// Not thiserror's derive, for `provide`: the error is found in a box even where a wrapper of a user's hides its type.
impl Error for KernelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::InvalidInput(error) => Some(error),
            Self::Memory(error) => error.source(),
            Self::Kernel(error) => Some(&**error),
            _ => None,
        }
    }
}

impl Classify for KernelError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownKernel { .. } => ErrorKind::NotFound,
            Self::RingKernel { .. } | Self::UnsupportedBackend { .. } => ErrorKind::Unsupported,
            Self::InvalidInput(_) => ErrorKind::InvalidArgument,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::OutOfMemory { need, total, .. } if need > total => ErrorKind::TooLarge,
            Self::OutOfMemory { .. } => ErrorKind::Overloaded,
            Self::Memory(error) => error.kind(),
            Self::ResponseTooLarge { .. } => ErrorKind::TooLarge,
            Self::DeviceLost { .. } | Self::Stopped { .. } => ErrorKind::Unavailable,
            Self::Panicked { .. } | Self::Encode(_) | Self::Device(_) | Self::Kernel(_) => ErrorKind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::Memory(error) = self {
            return error.retry_after();
        }
        // Memory is given back when a request ends, which most do within a second.
        (self.kind() == ErrorKind::Overloaded).then_some(Duration::from_secs(1))
    }
}
