//! Why there is no CUDA, and what a failed call means.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::driver::{Code, Driver, SUCCESS};
use crate::service::KernelError;

/// Why CUDA is off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Nobody wanted it.
    #[error("it was turned off")]
    TurnedOff,
    /// The driver's library is not installed.
    #[error("no NVIDIA driver library (libcuda) was found")]
    NoDriver,
    /// The driver lacks a function.
    #[error("the NVIDIA driver is too old: it has no {symbol}")]
    DriverTooOld {
        /// The function.
        symbol: &'static str,
    },
    /// The driver sees no device.
    #[error("the NVIDIA driver sees no device")]
    NoDevice,
    /// No device has this number.
    #[error("there is no CUDA device {ordinal}: the driver sees {count}")]
    NoSuchDevice {
        /// The device asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// The driver answered an error.
    #[error("{0}")]
    Failed(String),
}

impl Serialize for Unavailable {
    /// As its text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A call that failed, before it is known what that means for the request and the device.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The driver's answer.
    Call { call: &'static str, code: Code },
    /// Memory that is not there.
    OutOfMemory { need: u64, free: u64, total: u64 },
    /// Code that cannot be compiled or loaded.
    Code(String),
    /// A call of the kernel's host code that cannot be done.
    Misuse(Misuse),
    /// The device does not end what it was given.
    Hangs { after: Duration, told: bool },
    /// The caller has left, or its time is up.
    Stopped(KernelError),
}

/// What a kernel's host code got wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("a device buffer was used after the request that made it, or in another lane")]
    StaleBuffer,
    #[error("{0}")]
    Arguments(String),
    #[error("buffers of {from} and {to} elements, where one is copied onto the other")]
    Lengths { from: usize, to: usize },
}

impl Failure {
    pub(crate) fn check(call: &'static str, code: Code) -> Result<(), Self> {
        if code == SUCCESS { Ok(()) } else { Err(Self::Call { call, code }) }
    }

    pub(crate) fn is(&self, expected: Code) -> bool {
        matches!(self, Self::Call { code, .. } if *code == expected)
    }

    /// Whether the process has lost the device. CUDA calls these errors sticky: every later call answers the same, and
    /// neither closing the context nor resetting the device helps.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            // Deinitialised, device unavailable, ECC, NVLink, contained error, context destroyed, faults of running
            // code (illegal address, time-out, assert, stack, instruction, alignment, address space, program counter,
            // launch failed, and what later versions add up to 739), unknown.
            Self::Call { code, .. } => {
                matches!(code, 4 | 46 | 201 | 214 | 220 | 226 | 227 | 700 | 702 | 709 | 710 | 714..=719 | 721..=739 | 999)
            }
            Self::Hangs { .. } => true,
            Self::OutOfMemory { .. } | Self::Code(_) | Self::Misuse(_) | Self::Stopped(_) => false,
        }
    }

    pub(crate) fn text(&self, driver: &Driver) -> String {
        match self {
            Self::Call { call, code } => driver.describe(call, *code),
            Self::OutOfMemory { need, free, total } => format!("{need} bytes needed, {free} of {total} free"),
            Self::Hangs { after, told: true } => format!("it hangs: it was told to stop and went on for {after:?}"),
            Self::Hangs { after, told: false } => format!("it hangs: it was waited for for {after:?}"),
            Self::Code(text) => text.clone(),
            Self::Misuse(misuse) => misuse.to_string(),
            Self::Stopped(reason) => reason.to_string(),
        }
    }
}
