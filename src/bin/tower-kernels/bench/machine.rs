//! The machine of a run.

use std::time::Duration;

/// Processor model, number of processors and operating system, on one line.
pub(super) fn line() -> String {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, model)| model.trim().to_owned())
    });
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{}, {processors} processors, {os}", model.as_deref().unwrap_or(arch))
}

/// The processor time that this process has used.
#[cfg(target_os = "linux")]
pub(super) fn cpu_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().ok()
}

/// The processor time that this process has used.
#[cfg(not(target_os = "linux"))]
pub(super) fn cpu_time() -> Option<Duration> {
    None
}
