//! Device processes: kernels run in a process of their own, so that a fault of one costs one request one error.
//!
//! After an illegal access no CUDA context of a process ever works again, so a kernel that faults in a server's own process
//! takes the GPU from all its clients until the server is restarted. An isolated backend
//! ([`CpuBackend::isolated`](crate::backends::cpu::CpuBackend::isolated), `CudaBackend::isolated`) never opens the device. A
//! *device process* does: the same program, started again, with a thread for each worker. A *standby* has the device open as
//! well, and waits.
//!
//! ```text
//! server: sockets, layers, codec, queue, permits        device process: the context, and the kernels
//!   worker 0 ----- mailbox in shared memory ----- its partner
//!   worker 1 ----- mailbox in shared memory ----- its partner
//!                                                       standby: a context, ready
//! ```
//! Turn it on, and call [`run_device_process`] at the start of `main`, with the kernels that the program registers:
//!
//! ```no_run
//! use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
//! use tower_kernels::backends::process::{ProcessConfig, run_device_process};
//! use tower_kernels::service::{KernelRegistry, KernelService};
//!
//! fn registry() -> KernelRegistry {
//!     let registry = KernelRegistry::new();
//!     tower_kernels::kernels::register_all(&registry).expect("kernels with different ids");
//!     registry
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     run_device_process(registry);
//!     let backend = CpuBackend::isolated(&CpuConfig::default(), &ProcessConfig::default())?;
//!     let service = KernelService::with_backend(registry(), backend);
//!     # drop(service);
//!     Ok(())
//! }
//! ```
//!
//! # When a process ends
//! However it ends (a fault of the device, an abort, `kill -9`, a run that does not end), the standby takes over at once, and
//! another one is started. Queued jobs notice nothing. Of those that ran:
//!
//! | the job | |
//! | --- | --- |
//! | ran alone | is the cause: [`DeviceFault`](crate::service::KernelError::DeviceFault) |
//! | ran with others, and its kernel is [pure](crate::service::KernelInfo::pure) | runs again, alone in a process of its own. If that ends as well, the job is the cause |
//! | ran with others, and its kernel is not pure | [`Interrupted`](crate::service::KernelError::Interrupted) |
//! | did not end within [`hang_timeout`](ProcessConfig::hang_timeout) of its cancellation or deadline | is the cause |
//!
//! Operands are in the server's memory, and are sent to the new process when a request needs them. If five processes in a
//! row do not start, the device is lost as one without isolation is.
//!
//! # Quarantine
//! A kernel that has been the cause [`max_faults`](ProcessConfig::max_faults) times within
//! [`quarantine`](ProcessConfig::quarantine) for one tenant is rejected for that tenant, for as long, with
//! [`Quarantined`](crate::service::KernelError::Quarantined); with twice as many in all, for every tenant.
//!
//! # What a process may do
//! It has no socket but that to its parent, and cannot open one; it cannot start programs or trace others, and gains no
//! privileges (`no_new_privs`, a seccomp filter). It ends when its parent does. The parent trusts nothing that it reads from the
//! shared memory: a response that makes no sense ends the process as a fault does.
//!
//! # What it costs
//! Typed inputs and outputs are copied to shared memory, arrays as they are. A device reads large inputs where they are then, and
//! the server large outputs. Each worker has a partner in the device process that spins as well while it waits, so fewer workers do
//! more: a third of the processors at most. `benches/RESULTS.md` has the figures.

mod child;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod device_process;
mod faults;
mod message;
mod operands;
mod processes;
mod report;
mod status;
mod worker;

pub use self::config::ProcessConfig;
#[cfg(feature = "cuda")]
pub(crate) use self::cuda::{OpenedDevice, ReportedUsage};
pub(crate) use self::message::Setup;
pub(crate) use self::processes::Processes;
pub use self::status::{ProcessStatus, QuarantinedKernel};
use crate::service::KernelRegistry;

/// Runs a device process, if that is what this process was started for, and ends it. Returns at once in any other.
///
/// Call it at the start of `main`, before threads are started and files are opened. `registry` makes the registry with the
/// kernels of this program.
pub fn run_device_process(registry: impl FnOnce() -> KernelRegistry) {
    if let Some(inherited) = crate::process::enter() {
        std::process::exit(child::serve(inherited, registry));
    }
}
