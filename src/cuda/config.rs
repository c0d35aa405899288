//! [`CudaConfig`]: the configuration of a CUDA device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pinned;
use crate::copy::CopyThreads;

/// Configuration of a [`CudaBackend`](crate::backends::cuda::CudaBackend).
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CudaConfig {
    /// Worker threads. Each runs one request at a time, and owns CUDA streams, 16 MiB of pinned staging memory and 2 MiB
    /// of device memory. 0 counts as 1. Default: half the host's processors, at least 2 and at most 8.
    ///
    /// Two workers saturate the PCIe bus. More of them raise the throughput of small requests, up to about half the
    /// processors, because a worker spins while it waits for the device. Where requests run for long, use more workers
    /// than there are such requests at a time. `benches/RESULTS.md` has the measurements.
    pub workers: usize,
    /// Requests that may wait for a worker. Default: 64 for each worker.
    pub queue: usize,
    /// Time for which an idle worker polls its queue before it sleeps. Default: 50 µs.
    pub idle_spin: Duration,
    /// Threads that help the workers to copy large arrays between pageable and pinned memory. Default: one for every four
    /// processors, at most 4.
    pub copy_threads: usize,
    /// Longest time for which the thread that polls a request's future busy-polls for its result, where the request is
    /// small and the only one on the device. A wake-up takes longer than such a request. Default: 30 µs.
    pub busy_poll: Duration,
    /// Requests that take no longer than this to decode are decoded on the calling thread. Default: 20 µs.
    pub inline: Duration,
    /// Most bytes of pinned host memory for large arrays of requests and responses, in addition to the 16 MiB of each
    /// worker. Idle memory is kept for [`idle_memory_ttl`](Self::idle_memory_ttl). With 0 all arrays are copied through
    /// staging memory. Default: an eighth of the host's memory or of the control group's limit, whichever is less;
    /// 256 MiB where neither is known.
    pub pinned_bytes: usize,
    /// Most bytes of device memory for running requests. It never exceeds what is free when the device is opened.
    /// Default: what is free then, less 256 MiB.
    pub device_bytes: Option<u64>,
    /// Most bytes of device memory for resident copies of [operands](crate::service::Operands), which count in
    /// [`device_bytes`](Self::device_bytes). 0 turns them off: each run uploads its operands then. Default: a quarter of
    /// the device's memory.
    pub operand_memory: Option<u64>,
    /// Time after which pinned and device memory that no request has used is freed. It is freed while no request runs,
    /// because the driver waits for running kernels. Default: 10 s.
    pub idle_memory_ttl: Duration,
    /// Time after which a device that does not stop a request that was cancelled, or whose deadline has passed, counts as
    /// hung and is lost. Kernels that do not poll their [cancel flag](super::LaunchContext::cancel_flag) must end within this
    /// time. Default: 60 s.
    pub hang_timeout: Duration,
    /// Longest time for which a worker waits for queued work, cancelled or not, before the device counts as hung.
    /// Default: no limit.
    pub stall_timeout: Option<Duration>,
    /// One in this many requests is timed with CUDA events: see [`DeviceTimes`](crate::request::DeviceTimes). 0 turns timing off. Timing adds some
    /// 25 µs to a request, or 40 µs where its caller would have got the response within [`busy_poll`](Self::busy_poll).
    /// Default: 512, which is 1 % of small requests' time or less.
    pub timing_sample_interval: u32,
    /// Whether device memory that a kernel has not written yet is filled with a pattern. Default: in debug builds.
    pub poison_uninitialized: bool,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self::for_devices(1)
    }
}

impl CudaConfig {
    /// The default configuration of each of `devices` devices, which share the host's processors and memory.
    pub fn for_devices(devices: usize) -> Self {
        let devices = devices.max(1);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / devices;
        let workers = (processors / 2).clamp(2, 8);
        Self {
            workers,
            queue: 64 * workers,
            idle_spin: Duration::from_micros(50),
            copy_threads: CopyThreads::default_count(processors),
            busy_poll: Duration::from_micros(30),
            inline: Duration::from_micros(20),
            pinned_bytes: pinned::default_limit() / devices,
            device_bytes: None,
            operand_memory: None,
            idle_memory_ttl: Duration::from_secs(10),
            hang_timeout: Duration::from_secs(60),
            stall_timeout: None,
            timing_sample_interval: 512,
            poison_uninitialized: cfg!(debug_assertions),
        }
    }
}
