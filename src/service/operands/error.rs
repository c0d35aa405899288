//! [`OperandError`]: why an operand could not be stored, found or removed.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Classify, ErrorKind, provide};
use crate::service::{InvalidInput, KernelError};

/// The error of an operation on operands. The state before it stays as it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OperandError {
    /// There is no operand of this name and version that the tenant may use.
    NotFound {
        /// The reference, as it was given.
        reference: String,
    },
    /// A part of the reference or of the value is invalid.
    Invalid(InvalidInput),
    /// No type has this name.
    UnknownType {
        /// The names of the types that there are.
        known: Vec<&'static str>,
    },
    /// The condition of the request does not hold: the operand has another version, or there is one already.
    ConditionFailed {
        /// The entity tag of the version that there is; `None` if there is none.
        found: Option<String>,
    },
    /// A public operand of another tenant has this name.
    NameTaken,
    /// The operand does not fit in what is left of a budget.
    OverBudget {
        /// The budget.
        budget: OperandBudget,
        /// Bytes needed.
        need: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// There are as many operands as there may be.
    TooMany {
        /// The maximum number of operands of a tenant, or of all.
        max: usize,
    },
    /// The disk of the [directory](super::Operands::open) has not enough space for the operand's files.
    DiskFull {
        /// Bytes of the file that could not be written.
        need: u64,
    },
    /// The files of the operand could not be written or removed.
    Directory(Arc<io::Error>),
    /// The operands are being [loaded](super::Operands::load). Until then none is found, stored or removed.
    Loading,
    /// Making the value failed.
    Kernel(KernelError),
}

impl OperandError {
    /// Adds `bytes` that the operand has reserved already to what it needs and what is free for it.
    pub(super) fn with_reserved(self, bytes: u64) -> Self {
        match self {
            Self::OverBudget { budget, need, free } => {
                Self::OverBudget { budget, need: need + bytes, free: free + bytes }
            }
            other => other,
        }
    }
}

/// A budget of operands' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperandBudget {
    /// The host memory of all operands.
    Host,
    /// The host memory of one tenant's operands.
    Tenant,
    /// The memory for operands of a device on which the operand was to be [placed](super::Placement).
    Device,
}

impl fmt::Display for OperandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { reference } => write!(f, "there is no operand `{reference}`"),
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::UnknownType { known } => write!(f, "type: not one of the types of operands, which are {known:?}"),
            Self::ConditionFailed { found: Some(tag) } => write!(f, "the operand has the entity tag {tag} now"),
            Self::ConditionFailed { found: None } => f.write_str("there is no such operand now"),
            Self::NameTaken => f.write_str("a public operand of another tenant has this name"),
            Self::OverBudget { budget, need, free } => {
                let of = match budget {
                    OperandBudget::Host => "the memory of all operands",
                    OperandBudget::Tenant => "the tenant's memory for operands",
                    OperandBudget::Device => "the device's memory for operands",
                };
                write!(f, "the operand needs {need} bytes, and {free} of {of} are free")
            }
            Self::TooMany { max } => write!(f, "there are {max} operands, and {max} is the most"),
            Self::DiskFull { need } => write!(f, "the operand needs a file of {need} bytes, and the disk is full"),
            Self::Directory(_) => f.write_str("the files of the operand cannot be changed"),
            Self::Loading => f.write_str("the stored operands are being loaded; try again later"),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl Error for OperandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::Kernel(error) => error.source(),
            Self::Directory(error) => Some(&**error),
            _ => None,
        }
    }
}

impl Classify for OperandError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Invalid(_) | Self::UnknownType { .. } => ErrorKind::InvalidArgument,
            Self::ConditionFailed { .. } => ErrorKind::PreconditionFailed,
            Self::NameTaken => ErrorKind::AlreadyExists,
            Self::OverBudget { .. } | Self::TooMany { .. } | Self::DiskFull { .. } => ErrorKind::InsufficientStorage,
            Self::Directory(_) => ErrorKind::Internal,
            Self::Loading => ErrorKind::Unavailable,
            Self::Kernel(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Loading => Some(Duration::from_secs(1)),
            Self::Kernel(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<InvalidInput> for OperandError {
    fn from(invalid: InvalidInput) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<KernelError> for OperandError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::InvalidInput(invalid) => Self::Invalid(invalid),
            error => Self::Kernel(error),
        }
    }
}
