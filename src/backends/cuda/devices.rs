//! [`CudaDevices`]: several devices, opened together.

use std::cmp::Reverse;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::{CudaBackend, CudaConfig};
use crate::backends::CudaState;
#[cfg(all(feature = "isolation", target_os = "linux"))]
use crate::backends::process::ProcessConfig;
use crate::cuda::{Unavailable, devices};
use crate::service::{OperandDevices, OperandError, OperandMemory, Placement};

/// The CUDA devices of a process: those that are open, and those that could not be opened.
#[derive(Clone, Debug)]
pub struct CudaDevices {
    open: Vec<CudaBackend>,
    missing: Vec<MissingDevice>,
}

/// A device that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct MissingDevice {
    /// The ordinal by which the driver knows it.
    pub ordinal: u32,
    /// Why it could not be opened.
    pub reason: String,
}

impl fmt::Display for MissingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CUDA device {} is off ({})", self.ordinal, self.reason)
    }
}

impl CudaDevices {
    /// Opens all devices that the driver sees, with the default configuration for their number. A device takes a few hundred
    /// milliseconds; they are opened at the same time.
    ///
    /// # Errors
    /// Why no device is available.
    pub fn open() -> Result<Self, Unavailable> {
        let ordinals: Vec<_> = devices()?.iter().map(|device| device.ordinal).collect();
        let config = CudaConfig::for_devices(ordinals.len());
        Self::with_config(&ordinals, &config)
    }

    /// Opens the devices with these ordinals, each with this configuration.
    ///
    /// # Errors
    /// Why the first of them is not available, if none is.
    pub fn with_config(ordinals: &[u32], config: &CudaConfig) -> Result<Self, Unavailable> {
        Self::open_each(ordinals, |ordinal| CudaBackend::with_config(ordinal, config.clone()))
    }

    /// Has the devices with these ordinals opened, each by a [process of its own](crate::backends::process).
    ///
    /// # Errors
    /// Why the first of them is not available, if none is.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub fn isolated(ordinals: &[u32], config: &CudaConfig, processes: &ProcessConfig) -> Result<Self, Unavailable> {
        Self::open_each(ordinals, |ordinal| CudaBackend::isolated(ordinal, config, processes))
    }

    /// Opens devices at the same time.
    fn open_each(
        ordinals: &[u32],
        open: impl Fn(u32) -> Result<CudaBackend, Unavailable> + Sync,
    ) -> Result<Self, Unavailable> {
        let mut ordinals = ordinals.to_vec();
        ordinals.sort_unstable();
        ordinals.dedup();
        let open = &open;
        let opened = std::thread::scope(|scope| {
            let open = |ordinal| scope.spawn(move || open(ordinal));
            let threads: Vec<_> = ordinals.iter().map(|&ordinal| (ordinal, open(ordinal))).collect();
            let panicked = |_| Err(Unavailable::Failed("a panic while it was opened".to_owned()));
            let join = |(ordinal, thread): (u32, std::thread::ScopedJoinHandle<'_, _>)| {
                (ordinal, thread.join().unwrap_or_else(panicked))
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut first = None;
        let mut this = Self { open: Vec::new(), missing: Vec::new() };
        for (ordinal, device) in opened {
            match device {
                Ok(device) => this.open.push(device),
                Err(why) => {
                    this.missing.push(MissingDevice { ordinal, reason: why.to_string() });
                    first.get_or_insert(why);
                }
            }
        }
        if this.open.is_empty() { Err(first.unwrap_or(Unavailable::NoDevice)) } else { Ok(this) }
    }

    /// Returns the devices that were opened, by ordinal. Each may have been lost since.
    pub fn backends(&self) -> &[CudaBackend] {
        &self.open
    }

    /// Returns the devices that could not be opened.
    pub fn missing(&self) -> &[MissingDevice] {
        &self.missing
    }

    pub(crate) fn state(&self) -> CudaState {
        CudaState::On { devices: self.open.iter().map(CudaBackend::status).collect(), missing: self.missing.clone() }
    }
}

impl OperandDevices for Result<CudaDevices, Unavailable> {
    fn place(&self, operand: &OperandMemory) -> Result<(), OperandError> {
        let (Ok(CudaDevices { open, .. }), Some(arrays)) = (self, operand.host_arrays()) else { return Ok(()) };
        let mut up: Vec<&CudaBackend> = open.iter().filter(|device| device.lost().is_none()).collect();
        if operand.placement() == Placement::One {
            up.sort_by_key(|device| Reverse(device.free_operand_memory()));
        }
        let mut first_error = None;
        for device in up {
            match (device.place(arrays), operand.placement()) {
                (Ok(()), Placement::One) => return Ok(()),
                (Ok(()), _) => {}
                // The others have the operand; requests do not go to this one any more.
                (Err(error), _) if device.lost().is_some() => {
                    let ordinal = device.device().ordinal;
                    tracing::warn!(device = ordinal, %error, "a device was lost while an operand was placed on it");
                }
                (Err(error), Placement::One) => {
                    first_error.get_or_insert(error);
                }
                (Err(error), _) => return Err(error),
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

impl From<CudaBackend> for CudaDevices {
    fn from(device: CudaBackend) -> Self {
        Self { open: vec![device], missing: Vec::new() }
    }
}

impl From<Vec<CudaBackend>> for CudaDevices {
    fn from(open: Vec<CudaBackend>) -> Self {
        Self { open, missing: Vec::new() }
    }
}
