//! What runs kernels. A backend is a `Service` of [`Job`](crate::service::Job)s.
//!
//! `poll_ready` reserves a slot, so `Pending` means that the backend is full. The slot goes with the job and is free
//! again when the work has really stopped, which can be a little after its caller has left. A slot that is reserved and
//! not used is given back on `Drop`; a clone starts without one.
//!
//! Work waits in a bounded queue before *lanes*: OS threads that run one job at a time. What costs less than the way to
//! another thread and back runs inside the call.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod lanes;
mod local;

pub use lanes::{LaneLoad, PoolStatus, RunFuture};
pub use local::{CpuStatus, CudaState, Local, LocalStatus};
