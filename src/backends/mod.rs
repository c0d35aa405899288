//! Backends, which run kernels. A backend is a [`Service`](tower_service::Service) of [`Job`](crate::service::Job)s.
//!
//! * [`Local`]: the devices of this machine as one backend.
//! * [`cpu::CpuBackend`]: the host's processors.
//! * `cuda::CudaBackend`: one NVIDIA GPU (feature `cuda`).
//! * [`BatchedLayer`]: merges requests into shared runs of any backend.
//! * `process`: isolated backends, whose kernels run in processes of their own (feature `isolation`, on Linux).
//!
//! A backend of your own runs jobs on a thread of its own or forwards them to another service; see
//! [`Job`](crate::service::Job) and the example `custom_backend`.
//!
//! # Readiness and cancellation
//!
//! `poll_ready` reserves a permit, so `Pending` means that the backend is full. The permit is released when the work has
//! ended, which can be a little after the response future was dropped. A reserved permit that is not used is released on
//! `Drop`; a clone starts without one.
//!
//! Jobs wait in a bounded queue for *workers*: OS threads that run one job at a time. A CPU job that costs less than a hop to
//! another thread and back runs on the calling thread.
//!
//! # Several devices
//!
//! Each device is a backend of its own, with workers and memory of its own. [`Local`] combines them with the CPU. The
//! [`PoolLoad`] of a backend is the predicted run time of its jobs, so a device with one job of a second has a higher load
//! than one with a hundred of a millisecond. Of two devices, the one with the lower load gets the next job.
//! Between the CPU and the devices it chooses by the predicted time to the response; see [`Local`].
//!
//! # Lost devices
//!
//! A device that faults, or hangs past its timeout, is lost until the process is restarted, unless it is isolated: see the
//! module `process`. Its pool closes, which readiness,
//! `/health` and `/metrics` report from then on, and hands its jobs back:
//!
//! | the job | goes to |
//! | --- | --- |
//! | is queued | another device, or the CPU if no device is left |
//! | runs, and its kernel is [pure](crate::service::KernelInfo::pure) | the CPU, where it starts again |
//! | runs, and its kernel is not pure | its caller, with [`DeviceLost`](crate::service::KernelError::DeviceLost) |
//!
//! A fault affects the other devices of the process as well: CUDA fails each of them when it is used next (measured on two
//! H200), and then every job goes to the CPU until the process is restarted. A device that hangs does not affect the others.
//! The driver takes 150 to 580 ms to report a fault.
//!
//! A job that ran when its device was lost may be the cause, so no other device gets it. A job that moves completes once, keeps
//! its deadline, can be dropped at any time, and holds no permit while it moves. It goes to the CPU only if it can meet its
//! deadline there.

pub mod batched;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod local;
#[cfg(all(feature = "isolation", target_os = "linux"))]
pub mod process;
pub(crate) mod worker_pool;

pub use batched::BatchedLayer;
pub(crate) use local::Preference;
pub use local::{CpuStatus, CudaState, Local, LocalFuture, LocalStatus};
pub use worker_pool::{PoolLoad, PoolStatus, RunFuture};
