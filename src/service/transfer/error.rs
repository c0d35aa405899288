//! Carries a [`KernelError`] to another process.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{TransferError, read_head, write_head};
use crate::error::{Classification, Classify, ErrorKind};
use crate::service::{BackendError, BackendKind, HostMemoryError, InvalidInput, KernelError};

/// Writes an error. Its kind, its retry-after and its text, with those of its sources, cross; the type of an error of a
/// kernel's or a backend's own does not.
///
/// # Errors
/// The serializer's.
pub(crate) fn write_error(error: &KernelError) -> Result<Vec<u8>, TransferError> {
    write_head(&ErrorForm::from(error))
}

/// Reads an error that [`write_error`] has written.
///
/// # Errors
/// It is none.
pub(crate) fn read_error(head: &[u8]) -> Result<KernelError, TransferError> {
    read_head::<ErrorForm<'static>>(head)?.into_error()
}

/// The variants of [`KernelError`].
#[derive(Serialize, Deserialize)]
enum ErrorForm<'a> {
    UnknownKernel { id: Cow<'a, str> },
    RingKernel { id: Cow<'a, str> },
    UnsupportedBackend { id: Cow<'a, str>, backend: BackendKind },
    NoBackend { backend: BackendKind },
    InvalidInput { field: Cow<'a, str>, reason: Cow<'a, str> },
    DeadlineExceeded { started: bool },
    Cancelled,
    OutOfMemory { need: u64, free: u64, total: u64 },
    MemoryTooLarge { needed: u64, max: u64 },
    MemoryExhausted { needed: u64, used: u64, max: u64 },
    ResponseTooLarge { max: u64 },
    DeviceLost { device: Cow<'a, str>, reason: Cow<'a, str> },
    DeviceFault { kernel: Cow<'a, str>, reason: Cow<'a, str> },
    Interrupted { device: Cow<'a, str>, reason: Cow<'a, str> },
    Quarantined { kernel: Cow<'a, str>, remaining: Duration },
    OperandsLoading,
    Stopped { backend: BackendKind },
    Panicked { message: Cow<'a, str> },
    Encode { reason: Cow<'a, str> },
    Device { reason: Cow<'a, str> },
    Kernel { texts: Vec<String> },
    Backend { kind: u8, retry_after: Option<Duration>, texts: Vec<String> },
}

impl<'a> From<&'a KernelError> for ErrorForm<'a> {
    fn from(error: &'a KernelError) -> Self {
        let text = |text: &'a str| Cow::Borrowed(text);
        match error {
            KernelError::UnknownKernel { id } => Self::UnknownKernel { id: text(id) },
            KernelError::RingKernel { id } => Self::RingKernel { id: text(id) },
            KernelError::UnsupportedBackend { id, backend } => match backend_kind(backend) {
                Some(backend) => Self::UnsupportedBackend { id: text(id), backend },
                None => Self::of_another_backend(error),
            },
            KernelError::NoBackend { backend } => match backend_kind(backend) {
                Some(backend) => Self::NoBackend { backend },
                None => Self::of_another_backend(error),
            },
            KernelError::InvalidInput(InvalidInput { field, reason }) => {
                Self::InvalidInput { field: text(field), reason: text(reason) }
            }
            &KernelError::DeadlineExceeded { started } => Self::DeadlineExceeded { started },
            KernelError::Cancelled => Self::Cancelled,
            &KernelError::OutOfMemory { need, free, total } => Self::OutOfMemory { need, free, total },
            &KernelError::Memory(HostMemoryError::TooLarge { needed, max }) => Self::MemoryTooLarge { needed, max },
            &KernelError::Memory(HostMemoryError::Exhausted { needed, used, max }) => {
                Self::MemoryExhausted { needed, used, max }
            }
            &KernelError::ResponseTooLarge { max } => Self::ResponseTooLarge { max },
            KernelError::DeviceLost { device, reason } => {
                Self::DeviceLost { device: text(device), reason: text(reason) }
            }
            KernelError::DeviceFault { kernel, reason } => {
                Self::DeviceFault { kernel: text(kernel), reason: text(reason) }
            }
            KernelError::Interrupted { device, reason } => {
                Self::Interrupted { device: text(device), reason: text(reason) }
            }
            KernelError::Quarantined { kernel, remaining } => {
                Self::Quarantined { kernel: text(kernel), remaining: *remaining }
            }
            KernelError::OperandsLoading => Self::OperandsLoading,
            KernelError::Stopped { backend } => match backend_kind(backend) {
                Some(backend) => Self::Stopped { backend },
                None => Self::of_another_backend(error),
            },
            KernelError::Panicked { message } => Self::Panicked { message: text(message) },
            KernelError::Encode(reason) => Self::Encode { reason: text(reason) },
            KernelError::Device(reason) => Self::Device { reason: text(reason) },
            KernelError::Kernel(error) => Self::Kernel { texts: texts(&**error) },
            KernelError::Backend(backend) => Self::backend(error, backend.error()),
        }
    }
}

/// Returns the backend of this crate that has this name.
fn backend_kind(name: &str) -> Option<BackendKind> {
    name.parse().ok().filter(|kind: &BackendKind| kind.as_str() == name)
}

impl ErrorForm<'_> {
    /// Makes the form of an error with the name of a backend that is not of this crate. Names are static, so that it becomes
    /// [`KernelError::Backend`], with the same kind and, as its source, the text.
    fn of_another_backend(error: &KernelError) -> Self {
        Self::backend(error, error)
    }

    fn backend(classified: &KernelError, error: &(dyn Error + 'static)) -> Self {
        let kind = ErrorKind::ALL.iter().position(|kind| *kind == classified.kind()).expect("a kind of all");
        let kind = u8::try_from(kind).expect("there are few kinds");
        Self::Backend { kind, retry_after: classified.retry_after(), texts: texts(error) }
    }
}

impl ErrorForm<'_> {
    fn into_error(self) -> Result<KernelError, TransferError> {
        let owned = Cow::<str>::into_owned;
        Ok(match self {
            Self::UnknownKernel { id } => KernelError::UnknownKernel { id: owned(id).into() },
            Self::RingKernel { id } => KernelError::RingKernel { id: owned(id).into() },
            Self::UnsupportedBackend { id, backend } => {
                KernelError::UnsupportedBackend { id: owned(id).into(), backend: backend.as_str() }
            }
            Self::NoBackend { backend } => KernelError::NoBackend { backend: backend.as_str() },
            Self::InvalidInput { field, reason } => InvalidInput::new(field, reason).into(),
            Self::DeadlineExceeded { started } => KernelError::DeadlineExceeded { started },
            Self::Cancelled => KernelError::Cancelled,
            Self::OutOfMemory { need, free, total } => KernelError::OutOfMemory { need, free, total },
            Self::MemoryTooLarge { needed, max } => HostMemoryError::TooLarge { needed, max }.into(),
            Self::MemoryExhausted { needed, used, max } => HostMemoryError::Exhausted { needed, used, max }.into(),
            Self::ResponseTooLarge { max } => KernelError::ResponseTooLarge { max },
            Self::DeviceLost { device, reason } => {
                KernelError::DeviceLost { device: owned(device).into(), reason: owned(reason).into() }
            }
            Self::DeviceFault { kernel, reason } => {
                KernelError::DeviceFault { kernel: owned(kernel).into(), reason: owned(reason).into() }
            }
            Self::Interrupted { device, reason } => {
                KernelError::Interrupted { device: owned(device).into(), reason: owned(reason).into() }
            }
            Self::Quarantined { kernel, remaining } => {
                KernelError::Quarantined { kernel: owned(kernel).into(), remaining }
            }
            Self::OperandsLoading => KernelError::OperandsLoading,
            Self::Stopped { backend } => KernelError::Stopped { backend: backend.as_str() },
            Self::Panicked { message } => KernelError::Panicked { message: owned(message) },
            Self::Encode { reason } => KernelError::Encode(owned(reason)),
            Self::Device { reason } => KernelError::Device(owned(reason)),
            Self::Kernel { texts } => KernelError::Kernel(Arc::new(RemoteError::of(texts)?)),
            Self::Backend { kind, retry_after, texts } => {
                let kind = ErrorKind::ALL.get(usize::from(kind)).copied();
                let kind = kind.ok_or_else(|| TransferError::Read("an unknown kind of error".to_owned()))?;
                let mut classification = Classification::new(kind);
                classification.retry_after = retry_after;
                KernelError::Backend(Arc::new(BackendError::new(classification, RemoteError::of(texts)?.into())))
            }
        })
    }
}

/// The most errors of a chain that cross.
const MAX_SOURCES: usize = 32;

/// Returns the text of an error and of its sources.
fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source()).take(MAX_SOURCES).map(ToString::to_string).collect()
}

/// An error of another process, of which only the text is known here.
#[derive(Debug)]
struct RemoteError {
    text: String,
    source: Option<Box<Self>>,
}

impl RemoteError {
    /// Makes an error of its text and those of its sources.
    fn of(texts: Vec<String>) -> Result<Self, TransferError> {
        if texts.len() > MAX_SOURCES {
            return Err(TransferError::Read("an error with too many sources".to_owned()));
        }
        let source = texts.into_iter().rev().fold(None, |source, text| Some(Box::new(Self { text, source })));
        source.map(|error| *error).ok_or_else(|| TransferError::Read("an error without text".to_owned()))
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
