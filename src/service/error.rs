//! Errors of kernel requests.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use super::HostMemoryError;
use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};
use crate::request::limits::{MAX_FIELD_BYTES, MAX_REASON_BYTES};
use crate::request::metadata::InvalidMetadata;
use crate::text::truncated;

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidInput {
    /// The path of the field, such as `edges[3][1]`; `input` is the whole input.
    pub field: String,
    /// Why it is invalid.
    pub reason: String,
}

impl InvalidInput {
    /// Creates the error for a field. Long texts are truncated, as they can repeat what a client has sent.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: truncated(field.into(), MAX_FIELD_BYTES), reason: truncated(reason.into(), MAX_REASON_BYTES) }
    }
}

impl InvalidInput {
    /// Puts the name of the field that holds it before the path of the field.
    pub(crate) fn within(self, outer: &str) -> Self {
        Self::new(format!("{outer}.{}", self.field), self.reason)
    }
}

impl From<InvalidMetadata> for InvalidInput {
    fn from(InvalidMetadata { field, reason }: InvalidMetadata) -> Self {
        Self::new(field, reason)
    }
}

impl fmt::Display for InvalidInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, reason } = self;
        write!(f, "{field}: {reason}")
    }
}

impl Error for InvalidInput {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        None
    }
}

impl Classify for InvalidInput {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The error of a kernel request.
///
/// A backend of your own makes one with [`backend`](Self::backend) or from the variants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has this id.
    UnknownKernel {
        /// The id in the request.
        id: Cow<'static, str>,
    },
    /// The kernel is a ring kernel, which cannot be executed as a request.
    RingKernel {
        /// The kernel's id.
        id: Cow<'static, str>,
    },
    /// The kernel has no code for the backend.
    UnsupportedBackend {
        /// The kernel's id.
        id: Cow<'static, str>,
        /// The backend.
        backend: &'static str,
    },
    /// The request asks for a backend that this machine does not have.
    NoBackend {
        /// The backend.
        backend: &'static str,
    },
    /// The input is invalid.
    InvalidInput(InvalidInput),
    /// The deadline passed.
    DeadlineExceeded {
        /// Whether the kernel had started.
        started: bool,
    },
    /// The request was cancelled: its response future was dropped.
    Cancelled,
    /// The device has too little memory for the run.
    OutOfMemory {
        /// Bytes needed.
        need: u64,
        /// Bytes that were free.
        free: u64,
        /// Bytes of memory of the device.
        total: u64,
    },
    /// The request's host memory could not be reserved.
    Memory(HostMemoryError),
    /// The encoded output is larger than a response may be.
    ResponseTooLarge {
        /// The maximum size of a response in bytes.
        max: u64,
    },
    /// The device was lost to a fault. It cannot be used again until the process is restarted.
    DeviceLost {
        /// The device, such as `CUDA 0`.
        device: Arc<str>,
        /// The first fault, as reported by the driver. It is for operators and not part of the error's text, which clients
        /// see.
        reason: Arc<str>,
    },
    /// The kernel ended the [device process](crate::backends::process) that ran it: by a fault of the device, by ending the
    /// process, or by not ending itself. Other requests are not affected.
    DeviceFault {
        /// The kernel's id.
        kernel: Cow<'static, str>,
        /// The fault, as reported by the driver or the operating system. It is for operators and not part of the error's text,
        /// which clients see.
        reason: Arc<str>,
    },
    /// The device process that ran the kernel was ended by another request, and the kernel cannot be run again, as it is not
    /// [pure](crate::service::KernelInfo::pure).
    Interrupted {
        /// The device, such as `CUDA 0`.
        device: Arc<str>,
        /// Why it ended, for operators.
        reason: Arc<str>,
    },
    /// The kernel has ended its device process several times, and is rejected for a while.
    Quarantined {
        /// The kernel's id.
        kernel: Cow<'static, str>,
        /// For how long it is rejected from now on.
        remaining: Duration,
    },
    /// The request refers to operands, which are being [loaded](crate::service::Operands::load).
    OperandsLoading,
    /// The backend's worker threads have ended.
    Stopped {
        /// The backend.
        backend: &'static str,
    },
    /// The kernel's code, or that of its types, panicked. No other request is affected. Servers do not send the message
    /// to clients.
    Panicked {
        /// The panic's message, truncated to a kilobyte.
        message: String,
    },
    /// The output cannot be encoded as the request asks.
    Encode(String),
    /// The device failed the run and is still usable.
    Device(String),
    /// The kernel returned an error of its own.
    Kernel(Arc<dyn Error + Send + Sync>),
    /// A backend failed for a reason of its own; see [`backend`](Self::backend).
    Backend(Arc<BackendError>),
}

impl KernelError {
    /// Creates the error for an unknown id. A long id is truncated, as a client has sent it.
    pub(crate) fn unknown(id: impl Into<Cow<'static, str>>) -> Self {
        let id = id.into();
        let id = if id.len() > MAX_REASON_BYTES { truncated(id.into_owned(), MAX_REASON_BYTES).into() } else { id };
        Self::UnknownKernel { id }
    }

    /// Wraps an error of a kernel's own.
    pub fn kernel(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Kernel(error.into().into())
    }

    /// Wraps an error of a backend of your own, such as a remote service that cannot be reached. It keeps the error's
    /// [kind](ErrorKind) and retry-after.
    ///
    /// ```
    /// use tower::BoxError;
    /// use tower_kernels::error::{Classify, ErrorKind};
    /// use tower_kernels::service::KernelError;
    ///
    /// let full: BoxError = tower::load_shed::error::Overloaded::new().into();
    /// assert_eq!(KernelError::backend(full).kind(), ErrorKind::Overloaded);
    /// ```
    pub fn backend(error: impl AnyError + Into<BoxError>) -> Self {
        let classification = error.classify();
        Self::Backend(Arc::new(BackendError::new(classification, error.into())))
    }
}

/// An error of a backend, with its classification; made by [`KernelError::backend`].
#[derive(Debug)]
pub struct BackendError {
    classification: Classification,
    error: BoxError,
}

impl BackendError {
    pub(super) fn new(classification: Classification, error: BoxError) -> Self {
        Self { classification, error }
    }

    pub(super) fn error(&self) -> &(dyn Error + 'static) {
        &*self.error
    }

    /// Returns the error itself if its type is `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
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
            Self::NoBackend { backend } => write!(f, "this machine has no {backend} backend"),
            Self::InvalidInput(_) => f.write_str("the input is invalid"),
            Self::DeadlineExceeded { started: true } => f.write_str("the deadline passed while the kernel ran"),
            Self::DeadlineExceeded { started: false } => f.write_str("the deadline passed before the kernel started"),
            Self::Cancelled => f.write_str("the request was cancelled"),
            Self::OutOfMemory { need, total, free } => {
                write!(f, "{need} bytes of device memory are needed and {free} of {total} are free")
            }
            Self::Memory(error) => error.fmt(f),
            Self::ResponseTooLarge { max } => {
                write!(f, "the response is larger than the maximum of {max} bytes")
            }
            Self::DeviceLost { device, .. } => write!(f, "{device} is lost until this process is restarted"),
            Self::DeviceFault { kernel, .. } => write!(f, "`{kernel}` ended the device process that ran it"),
            Self::Interrupted { device, .. } => {
                write!(f, "the process of {device} was ended by another request while the kernel ran")
            }
            Self::Quarantined { kernel, .. } => {
                write!(f, "`{kernel}` is rejected for a while: it has ended its device process several times")
            }
            Self::OperandsLoading => f.write_str("the stored operands are being loaded; try again later"),
            Self::Stopped { backend } => write!(f, "the {backend} backend has stopped"),
            Self::Panicked { message } => write!(f, "the kernel panicked: {message}"),
            Self::Encode(reason) => write!(f, "the output cannot be encoded: {reason}"),
            Self::Device(reason) => write!(f, "the device failed the run: {reason}"),
            Self::Kernel(_) => f.write_str("the kernel failed"),
            Self::Backend(_) => f.write_str("the backend failed"),
        }
    }
}

// Not derived by thiserror, so that `provide` classifies the error inside of any box.
impl Error for KernelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::InvalidInput(error) => Some(error),
            Self::Memory(error) => error.source(),
            Self::Kernel(error) => Some(&**error),
            Self::Backend(backend) => Some(&*backend.error),
            _ => None,
        }
    }
}

impl Classify for KernelError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownKernel { .. } => ErrorKind::NotFound,
            Self::RingKernel { .. } | Self::UnsupportedBackend { .. } | Self::NoBackend { .. } => {
                ErrorKind::Unsupported
            }
            Self::InvalidInput(_) => ErrorKind::InvalidArgument,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::OutOfMemory { need, total, .. } if need > total => ErrorKind::TooLarge,
            Self::OutOfMemory { .. } => ErrorKind::Overloaded,
            Self::Memory(error) => error.kind(),
            Self::ResponseTooLarge { .. } => ErrorKind::TooLarge,
            Self::DeviceLost { .. } | Self::Interrupted { .. } | Self::OperandsLoading | Self::Stopped { .. } => {
                ErrorKind::Unavailable
            }
            Self::Quarantined { .. } => ErrorKind::Quarantined,
            Self::Backend(backend) => backend.classification.kind,
            Self::DeviceFault { .. } | Self::Panicked { .. } | Self::Encode(_) | Self::Device(_) | Self::Kernel(_) => {
                ErrorKind::Internal
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Memory(error) => error.retry_after(),
            Self::Backend(backend) => backend.classification.retry_after,
            Self::Interrupted { .. } | Self::OperandsLoading => Some(Duration::from_secs(1)),
            Self::Quarantined { remaining, .. } => Some(*remaining),
            // Memory is released when a request ends, which most do within a second.
            _ => (self.kind() == ErrorKind::Overloaded).then_some(Duration::from_secs(1)),
        }
    }
}
