//! Opens the backends and watches for lost devices.

use std::time::Duration;

use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaDevices;
use tower_kernels::backends::{CudaState, Local};
use tower_kernels::cuda::{self, Unavailable};

#[cfg(target_os = "linux")]
use super::device_processes;
use crate::config::{Config, CudaMode, Devices};
use crate::exit::{Exit, Failure};

/// How often the program checks for lost devices. Requests, health and metrics see a loss at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The backends of this machine.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) cpu: CpuBackend,
    pub(super) cuda: Result<CudaDevices, Unavailable>,
}

impl Backends {
    /// Returns them as one backend.
    pub(super) fn local(&self) -> Local {
        Local::with_backends(self.cpu.clone(), self.cuda.clone())
    }
}

pub(super) fn open(config: &Config) -> Result<Backends, Failure> {
    #[cfg(target_os = "linux")]
    let processes = device_processes::config(config)?;
    let required = config.cuda.mode == CudaMode::Required;
    let cuda = match config.cuda.mode {
        CudaMode::Off => Err(Unavailable::TurnedOff),
        #[cfg(target_os = "linux")]
        CudaMode::On | CudaMode::Required if config.isolation.backends.cuda() => ordinals(config)
            .and_then(|ordinals| CudaDevices::isolated(&ordinals, &config.cuda.backend(ordinals.len()), &processes)),
        CudaMode::On | CudaMode::Required => ordinals(config)
            .and_then(|ordinals| CudaDevices::with_config(&ordinals, &config.cuda.backend(ordinals.len()))),
    };
    match &cuda {
        Err(why) if required => {
            return Err(Exit::Unavailable.failure(format!("cuda.mode is `required`, but CUDA is not available: {why}")));
        }
        Ok(cuda) => {
            for missing in cuda.missing() {
                if required {
                    return Err(Exit::Unavailable.failure(format!("cuda.mode is `required`, but {missing}")));
                }
                tracing::warn!("{missing}");
            }
        }
        Err(_) => {}
    }
    let cpu = match config.cpu.backend() {
        #[cfg(target_os = "linux")]
        cpu if config.isolation.backends.cpu() => CpuBackend::isolated(&cpu, &processes),
        cpu => CpuBackend::with_config(cpu),
    };
    let cpu = cpu.map_err(|error| Exit::Failed.failure(format!("cannot start the CPU workers: {error}")))?;
    Ok(Backends { cpu, cuda })
}

/// The ordinals of the devices to use.
fn ordinals(config: &Config) -> Result<Vec<u32>, Unavailable> {
    Ok(match &config.cuda.devices {
        Devices::All => cuda::devices()?.iter().map(|device| device.ordinal).collect(),
        Devices::These(ordinals) => ordinals.clone(),
    })
}

/// Logs each lost CUDA device. Completes at the first one if `exit`, else never.
pub(super) async fn device_lost(local: &Local, exit: bool) -> String {
    if matches!(local.status().cuda, CudaState::Off { .. }) {
        // It stays off: an idle server need not wake up to see that.
        return std::future::pending().await;
    }
    let mut watch = LostDevices::default();
    loop {
        let why = watch
            .next(|| match local.status().cuda {
                CudaState::On { devices, .. } => devices.into_iter().filter_map(|device| device.lost).collect(),
                CudaState::Off { .. } => Vec::new(),
            })
            .await;
        tracing::error!(why, "a CUDA device is lost");
        if exit {
            return why;
        }
    }
}

/// The lost devices that have been reported.
#[derive(Default)]
struct LostDevices {
    reported: Vec<String>,
}

impl LostDevices {
    /// Waits for the next lost device and returns the reason.
    async fn next(&mut self, lost: impl Fn() -> Vec<String>) -> String {
        loop {
            if let Some(why) = lost().into_iter().find(|why| !self.reported.contains(why)) {
                self.reported.push(why.clone());
                return why;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn each_loss_is_reported_once_and_within_an_interval() {
        let begun = tokio::time::Instant::now();
        let checks = Cell::new(0);
        let lost = || {
            checks.set(checks.get() + 1);
            let reasons = ["CUDA 1 fell off the bus", "CUDA 0 did so too"];
            reasons.iter().take(checks.get() / 4).map(|&why| why.to_owned()).collect()
        };
        let mut watch = LostDevices::default();
        assert_eq!((watch.next(lost).await.as_str(), begun.elapsed()), ("CUDA 1 fell off the bus", 3 * CHECK_INTERVAL));
        assert_eq!((watch.next(lost).await.as_str(), begun.elapsed()), ("CUDA 0 did so too", 6 * CHECK_INTERVAL));
        let more = tokio::time::timeout(100 * CHECK_INTERVAL, watch.next(lost)).await;
        assert!(more.is_err(), "{more:?}");
    }
}
