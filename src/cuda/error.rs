//! [`CudaError`]: why a call of the device runtime fails, and [`Unavailable`]: why there is no device.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::driver::{Code, Driver, SUCCESS};

/// Why CUDA, or one of its devices, is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// CUDA is turned off by configuration.
    #[error("it was turned off")]
    TurnedOff,
    /// The driver's library is not installed.
    #[error("no NVIDIA driver library (libcuda) was found")]
    NoDriver,
    /// The driver lacks a function that is needed.
    #[error("the NVIDIA driver is too old: it has no {symbol}")]
    DriverTooOld {
        /// The function.
        symbol: &'static str,
    },
    /// The driver sees no device.
    #[error("the NVIDIA driver sees no device")]
    NoDevice,
    /// No device has this ordinal.
    #[error("there is no CUDA device {ordinal}: the driver sees {count}")]
    NoSuchDevice {
        /// The ordinal that was given.
        ordinal: u32,
        /// The number of devices.
        count: u32,
    },
    /// The device could not be opened.
    #[error("{0}")]
    Failed(String),
}

impl Serialize for Unavailable {
    /// Serializes the error's text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<CudaError> for Unavailable {
    fn from(error: CudaError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Why a call of the device runtime fails.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CudaError {
    /// A function of the driver returned an error.
    Driver {
        /// The function.
        call: &'static str,
        /// The `CUresult` that it returned.
        code: u32,
    },
    /// There is not enough device memory.
    OutOfMemory {
        /// Bytes that were needed.
        need: u64,
        /// Bytes that were available.
        free: u64,
        /// Bytes that the device has.
        total: u64,
    },
    /// Device code cannot be compiled or loaded.
    Module(String),
    /// A buffer or cancel flag was used after the run that made it, or in another run.
    StaleBuffer,
    /// A write to an array that is only for reading.
    ReadOnlyBuffer,
    /// The arguments of a launch are not those that the kernel declares.
    InvalidArguments(String),
    /// A copy between arrays of different lengths.
    LengthMismatch {
        /// Elements of the source.
        from: usize,
        /// Elements of the target.
        to: usize,
    },
    /// The work was cancelled.
    Cancelled,
    /// The device does not finish its work.
    Hung {
        /// How long it was waited for.
        after: Duration,
        /// Whether the work had been cancelled.
        cancelled: bool,
    },
    /// The process has lost the device: it faulted or hung.
    DeviceLost {
        /// The ordinal of the device.
        ordinal: u32,
        /// The first fault that was seen.
        reason: Arc<str>,
    },
}

impl CudaError {
    pub(super) fn check(call: &'static str, code: Code) -> Result<(), Self> {
        if code == SUCCESS { Ok(()) } else { Err(Self::Driver { call, code }) }
    }

    pub(super) fn is(&self, expected: Code) -> bool {
        matches!(self, Self::Driver { code, .. } if *code == expected)
    }

    /// Whether the device is lost to the process. CUDA calls these errors sticky: every later call returns the same, and
    /// neither destroying the context nor resetting the device helps.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            // Deinitialised, device unavailable, ECC, NVLink, contained error, context destroyed, faults of running
            // code (illegal address, time-out, assert, stack, instruction, alignment, address space, program counter,
            // launch failed, and what later versions add up to 739), unknown.
            Self::Driver { code, .. } => {
                matches!(code, 4 | 46 | 201 | 214 | 220 | 226 | 227 | 700 | 702 | 709 | 710 | 714..=719 | 721..=739 | 999)
            }
            Self::Hung { .. } => true,
            _ => false,
        }
    }

    /// Whether a wait ended early for a reason that is not the work's own: it was cancelled, or the device was lost to other
    /// work.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, Self::Cancelled | Self::DeviceLost { .. })
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver { call, code } => match Driver::get() {
                Ok(driver) => f.write_str(&driver.describe(call, *code)),
                Err(_) => write!(f, "{call} failed with error {code}"),
            },
            Self::OutOfMemory { need, free, total } => write!(f, "{need} bytes needed, {free} of {total} free"),
            Self::Module(text) | Self::InvalidArguments(text) => f.write_str(text),
            Self::StaleBuffer => f.write_str("a device buffer was used after the run that made it, or in another run"),
            Self::ReadOnlyBuffer => f.write_str("a write to a device buffer that is only for reading"),
            Self::LengthMismatch { from, to } => write!(f, "a copy of {from} elements to an array of {to}"),
            Self::Cancelled => f.write_str("the work was cancelled"),
            Self::Hung { after, cancelled: true } => write!(f, "it hangs: it went on for {after:?} after cancellation"),
            Self::Hung { after, cancelled: false } => write!(f, "it hangs: its work did not end within {after:?}"),
            Self::DeviceLost { ordinal, reason } => write!(f, "CUDA {ordinal} is lost: {reason}"),
        }
    }
}

impl std::error::Error for CudaError {}
