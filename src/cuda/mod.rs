//! The device runtime: driver, devices, streams, memory, modules and launches on NVIDIA GPUs.
//!
//! Nothing but the driver is needed to run it, and nothing to build it: the driver's library is loaded at run time, and
//! device code is embedded as machine code for compute capabilities 8.x, 9.x and 10.x and as PTX for all others from 7.5
//! on. [`devices`] lists the devices, or says why CUDA is not available.
//!
//! A [`LaunchContext`] is what the host code of a kernel works with: a stream, staging memory, and device memory that is
//! reused from run to run. Its calls fail with a [`CudaError`], converted into the error type of its [`CancelCheck`], which
//! also says when to stop. The runtime knows no kernel and no request: [`CudaBackend`](crate::backends::cuda::CudaBackend)
//! runs requests with it.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod cancel;
mod chunks;
mod compile_cache;
mod config;
mod device;
mod device_code;
mod download;
mod driver;
mod error;
mod event;
mod gpu;
mod huge_pages;
mod launch;
mod launch_context;
mod memory;
mod memory_budget;
mod module;
mod nvrtc;
#[cfg(not(test))]
mod pinned;
#[cfg(test)]
pub(crate) mod pinned;
mod resident;
mod stream;
mod stream_executor;
mod timer;
mod upload;

pub use cancel::CancelCheck;
pub(crate) use cancel::NeverCancelled;
pub use config::CudaConfig;
pub(crate) use device::Device;
pub use device::{DeviceInfo, Peak, devices};
pub(crate) use device_code::{DeviceCode, device_code};
pub use error::{CudaError, Unavailable};
pub use gpu::{Gpu, GpuReading, ThrottleReason};
pub use launch::{Arg, CancelFlag, DeviceBuffer, Launch};
pub use launch_context::LaunchContext;
pub(crate) use memory_budget::{ReserveMemory, ReservedMemory};
pub use module::Module;
#[cfg(all(feature = "isolation", target_os = "linux"))]
pub(crate) use pinned::ForeignPages;
pub use pinned::PinnedMemory;
pub(crate) use resident::{ArraySource, HostArrays};
pub(crate) use stream::StreamPriority;
pub(crate) use stream_executor::StreamExecutor;
pub(crate) use timer::PhaseTimes;
