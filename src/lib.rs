//! Tower middleware around a `Service<KernelRequest>` that runs kernels on CUDA GPUs and on the CPU.

pub mod backends;
pub mod error;
pub mod layers;
pub mod service;
