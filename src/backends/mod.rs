//! What runs kernels. A backend is a `Service` of [`Job`](crate::service::Job)s.
//!
//! `poll_ready` reserves a slot, so `Pending` means that the backend is full. The slot goes with the job and is free
//! again when the work has really stopped, which can be a little after its caller has left. A slot that is reserved and
//! not used is given back on `Drop`; a clone starts without one.
//!
//! Work waits in a bounded queue before *lanes*: OS threads that run one job at a time. What costs less than the way to
//! another thread and back runs inside the call.
//!
//! # Many devices
//! Each device is a backend of its own, with lanes and memory of its own. [`Local`] puts them and the CPU together. A
//! backend's [`PoolLoad`] is the time that its jobs are predicted to take, so a device with one job of a second has more to
//! do than one with a hundred of a millisecond, and of two devices the one with less gets the next job.
//!
//! # What a lost device takes with it
//! A device that faults, or hangs past its limit, is lost until the process is started again. Its pool ends then:
//! readiness, `/health` and `/metrics` say so when they are asked next, and every job on it comes back.
//!
//! | the job | goes to |
//! | --- | --- |
//! | waits | another device; where none is left, the CPU |
//! | runs, and its kernel is [pure](crate::service::KernelInfo::pure) | the CPU, and is begun anew |
//! | runs, and its kernel is not pure | its caller, with [`DeviceLost`](crate::service::KernelError::DeviceLost) |
//!
//! A fault is not its device's alone: CUDA takes away the other devices of the process as well, each when it is used next
//! (measured on two H200), and then everything goes to the CPU until the process is started again. A device that hangs
//! leaves the others as they are. The driver takes 150 to 580 ms to report a fault; from then on it is known at once.
//!
//! What ran when a device was lost may be why, so no other device is given it. A job has one answer, keeps its deadline and
//! can be dropped wherever it is, and holds no slot on its way. It goes to the CPU only if it can be done there in time.

pub mod batched;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod local;
pub(crate) mod worker_pool;

pub use batched::BatchedLayer;
pub use local::{CpuStatus, CudaState, Local, LocalFuture, LocalStatus};
pub use worker_pool::{PoolLoad, PoolStatus, RunFuture};
