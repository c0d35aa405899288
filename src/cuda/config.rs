//! Settings of a device.

use std::time::Duration;

use super::pinned;
#[cfg(doc)]
use crate::{backends::cuda::CudaBackend, cuda::LaunchContext, request::DeviceTimes};

/// How a [`CudaBackend`] is laid out.
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct CudaConfig {
    /// Jobs that run at one time, each with streams of its own and 16 MiB of pinned memory. Default: half as many as there
    /// are processors, and at least 2, at most 8.
    ///
    /// Two lanes fill the bus. More of them are for small requests, up to about half the processors, since a lane spins
    /// while its request runs; and for requests that hold a lane for long: there should be more lanes than of these.
    /// `benches/RESULTS.md` has the measurement.
    pub lanes: usize,
    /// Jobs that wait at one time. Default: 64 a cuda.
    pub queue: usize,
    /// How long a lane with nothing to do looks for work before it sleeps. Default: 50 µs.
    pub spin: Duration,
    /// Threads that help lanes to copy large arrays to and from pinned memory. Default: one for every four processors,
    /// at most 4.
    pub copiers: usize,
    /// How long the thread that polls a request looks for the answer, where the request is small and the only one on the
    /// device, before it turns to something else: to be woken takes longer than such a request. Default: 30 µs.
    pub linger: Duration,
    /// What takes no longer than this to decode is decoded inside the call. Default: 20 µs.
    pub inline: Duration,
    /// The most pinned host memory for large arrays of requests and responses, beside the lanes' 16 MiB each. What is not
    /// in use is kept for [`keep`](Self::keep). With 0 all arrays go through staging. Default: an eighth of the host's
    /// memory, or of what this process's control group may use; 256 MiB where neither can be told.
    pub pinned_bytes: usize,
    /// The most device memory for requests that run at one time. Default: what is free when the device is opened, but for
    /// 256 MiB. It is never more than what is free then.
    pub device_bytes: Option<u64>,
    /// How long memory that no request uses is kept, pinned and on the device, before it is given back. That happens while
    /// no request runs. Default: 10 s.
    pub keep: Duration,
    /// How long the device may go on with a job whose caller has left, or whose deadline has passed, before it counts as
    /// hung and is lost. Kernels that do not look at their [cancel flag](LaunchContext::cancel_flag) end by themselves within this.
    /// Default: 60 s.
    pub hang: Duration,
    /// How long a lane waits for what it has queued, whoever waits for the answer, before the device counts as hung.
    /// Default: without limit, since a kernel may take its time.
    pub stall: Option<Duration>,
    /// One request in so many is timed by the device: see [`DeviceTimes`]. 0 is none. It
    /// costs such a request some 25 µs, and 40 where its caller would else have had the answer within
    /// [`linger`](Self::linger). Default: 512, which is 1 % of small requests' time or less.
    pub time_one_in: u32,
    /// Whether memory that a kernel has not written yet is filled with a pattern. Default: in debug builds.
    pub poison: bool,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self::for_devices(1)
    }
}

impl CudaConfig {
    /// The default layout of each of so many devices, which share the host's processors and memory.
    pub fn for_devices(devices: usize) -> Self {
        let devices = devices.max(1);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / devices;
        let lanes = (processors / 2).clamp(2, 8);
        Self {
            lanes,
            queue: 64 * lanes,
            spin: Duration::from_micros(50),
            copiers: (processors / 4).min(4),
            linger: Duration::from_micros(30),
            inline: Duration::from_micros(20),
            pinned_bytes: pinned::default_limit() / devices,
            device_bytes: None,
            keep: Duration::from_secs(10),
            hang: Duration::from_secs(60),
            stall: None,
            time_one_in: 512,
            poison: cfg!(debug_assertions),
        }
    }
}
