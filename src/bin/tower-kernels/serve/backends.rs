//! What kernels run on: opened at the start, and watched.

use std::time::Duration;

use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaDevices;
use tower_kernels::backends::{CudaState, Local};
use tower_kernels::cuda::{self, Unavailable};

use crate::config::{Config, CudaMode, Devices};
use crate::exit::{Exit, Failure};

/// How often to look whether the devices are still there. Their callers, health and metrics see it at once.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn open(config: &Config) -> Result<Local, Failure> {
    let required = config.cuda.mode == CudaMode::Required;
    let cuda = match config.cuda.mode {
        CudaMode::Off => Err(Unavailable::TurnedOff),
        CudaMode::On | CudaMode::Required => devices(config),
    };
    match &cuda {
        Err(why) if required => {
            return Err(Exit::Unavailable.because(format!("cuda.mode is `required`, and there is no CUDA: {why}")));
        }
        Ok(cuda) => {
            for missing in cuda.missing() {
                if required {
                    return Err(Exit::Unavailable.because(format!("cuda.mode is `required`, and {missing}")));
                }
                tracing::warn!("{missing}");
            }
        }
        Err(_) => {}
    }
    let cpu = CpuBackend::with_config(config.cpu.backend());
    let cpu = cpu.map_err(|error| Exit::Failed.because(format!("cannot start the CPU's workers: {error}")))?;
    Ok(Local::with_backends(cpu, cuda))
}

fn devices(config: &Config) -> Result<CudaDevices, Unavailable> {
    let ordinals = match &config.cuda.devices {
        Devices::All => cuda::devices()?.iter().map(|device| device.ordinal).collect(),
        Devices::These(ordinals) => ordinals.clone(),
    };
    CudaDevices::with_config(&ordinals, &config.cuda.backend(ordinals.len()))
}

/// Completes once a CUDA device is lost, where the program is to end then. Where it is not, it says so of each and goes on.
pub(super) async fn lost(local: &Local, exit: bool) -> String {
    let mut watch = Watch::default();
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

/// What has been said of lost devices.
#[derive(Default)]
struct Watch {
    said: Vec<String>,
}

impl Watch {
    /// What is to be said of the next one that is lost.
    async fn next(&mut self, lost: impl Fn() -> Vec<String>) -> String {
        loop {
            if let Some(why) = lost().into_iter().find(|why| !self.said.contains(why)) {
                self.said.push(why.clone());
                return why;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn each_loss_is_seen_once_and_within_a_look() {
        let begun = tokio::time::Instant::now();
        let looks = Cell::new(0);
        let lost = || {
            looks.set(looks.get() + 1);
            let said = ["CUDA 1 fell off the bus", "CUDA 0 did so too"];
            said.iter().take(looks.get() / 4).map(|&why| why.to_owned()).collect()
        };
        let mut watch = Watch::default();
        assert_eq!((watch.next(lost).await.as_str(), begun.elapsed()), ("CUDA 1 fell off the bus", 3 * LOOK));
        assert_eq!((watch.next(lost).await.as_str(), begun.elapsed()), ("CUDA 0 did so too", 6 * LOOK));
        let more = tokio::time::timeout(100 * LOOK, watch.next(lost)).await;
        assert!(more.is_err(), "{more:?}");
    }
}
