//! The device runtime: contexts, streams, memory, modules and launches on NVIDIA GPUs.
//!
//! Nothing is needed to build it, and only the driver to run it: its library is loaded at run time, and kernels come as
//! machine code for compute capabilities 8.x, 9.x and 10.x and as PTX for all others from 7.5 on. [`devices`] lists the
//! devices, or says why CUDA is off.
//!
//! A kernel's host code gets a [`LaunchContext`]: a stream, staging memory and an arena on the device that are kept from
//! request to request. [`CudaBackend`](crate::backends::cuda::CudaBackend) runs requests with it.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod cache;
mod chunks;
mod config;
mod copy;
mod device;
mod download;
mod driver;
mod engine;
mod error;
mod gpu;
mod launch;
mod launch_context;
mod memory;
mod module;
mod nvrtc;
#[cfg(not(test))]
mod pinned;
#[cfg(test)]
pub(crate) mod pinned;
mod stream;
mod timer;
mod upload;
mod usage;
mod watch;

pub use config::CudaConfig;
pub(crate) use device::Device;
pub use device::{DeviceInfo, Peak, devices};
pub(crate) use engine::{Engine, run};
pub use error::Unavailable;
pub use gpu::{Gpu, GpuReading, ThrottleReason};
pub use launch::{Arg, CancelFlag, DeviceBuffer, Launch};
pub use launch_context::LaunchContext;
pub use module::Module;
pub(crate) use module::{Aligned, Cubin, built_in};
pub use pinned::PinnedMemory;
pub use usage::CudaUsage;
