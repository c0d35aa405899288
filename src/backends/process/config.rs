//! [`ProcessConfig`]: the settings of device processes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of device processes.
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessConfig {
    /// Arguments with which the program is started again. Default: none. It must reach
    /// [`run_device_process`](super::run_device_process) with them.
    pub args: Vec<OsString>,
    /// Environment variables that device processes do not get, such as those that hold secrets. Default: none.
    pub env_remove: Vec<OsString>,
    /// Whether a second process with an open device stands by, which takes over at once when the first one ends. Without it
    /// requests wait until a new process has started, and the device has its context's memory for other uses. Default: `true`.
    pub standby: bool,
    /// How long either side of a call polls for the other before it sleeps. A small run on a device takes about 20 µs, and a
    /// wake-up as long again. Default: 50 µs.
    pub spin: Duration,
    /// Most bytes of shared memory for the payloads of running requests and of responses that are being sent, each way.
    /// Default: 4 GiB.
    pub shared_memory: u64,
    /// Longest time from the start of a process to its being ready. Default: 60 s.
    pub start_timeout: Duration,
    /// Time after which a run that was cancelled, or whose deadline has passed, and does not end counts as hung. Its process is
    /// killed then. Default: 10 s, which is longer than the device's own
    /// [`hang_timeout`](crate::backends::cuda::CudaConfig::hang_timeout) is meant to be.
    pub hang_timeout: Duration,
    /// Faults of a kernel after which it is [quarantined](crate::backends::process#quarantine): as many for one tenant, and
    /// twice as many for all. Default: 3. With 0 no kernel is.
    pub max_faults: u32,
    /// The time in which faults are counted, and for which a kernel is quarantined. Default: 60 s.
    pub quarantine: Duration,
    /// The folder in which each fault leaves a report, as JSON: the kernel, the reason, the device and its driver, and the last runs.
    /// The newest hundred are kept. Default: none.
    pub reports: Option<PathBuf>,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env_remove: Vec::new(),
            standby: true,
            spin: Duration::from_micros(50),
            shared_memory: 4 << 30,
            start_timeout: Duration::from_secs(60),
            hang_timeout: Duration::from_secs(10),
            max_faults: 3,
            quarantine: Duration::from_secs(60),
            reports: None,
        }
    }
}
