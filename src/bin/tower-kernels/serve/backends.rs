//! What kernels run on: opened at the start, and watched.

use std::future::pending;
use std::time::Duration;

use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, Unavailable};
use tower_kernels::backends::{CudaState, Local};

use crate::config::{Config, CudaMode};
use crate::exit::{Exit, Failure};

/// How often to look whether the device is still there. Its callers learn of it at once.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn open(config: &Config) -> Result<Local, Failure> {
    let cuda = match config.cuda.mode {
        CudaMode::Off => Err(Unavailable::TurnedOff),
        CudaMode::On | CudaMode::Required => CudaBackend::with_config(config.cuda.ordinal, config.cuda.backend()),
    };
    if let (CudaMode::Required, Err(why)) = (config.cuda.mode, &cuda) {
        return Err(Exit::Unavailable.because(format!("cuda.mode is `required`, and there is no CUDA: {why}")));
    }
    let cpu = CpuBackend::with_config(config.cpu.backend());
    let cpu = cpu.map_err(|error| Exit::Failed.because(format!("the CPU's lanes: {error}")))?;
    Ok(Local::with_backends(cpu, cuda))
}

/// Completes once the CUDA device is lost, where the program is to end then. Where it is not, it says so and goes on.
pub(super) async fn lost(local: &Local, exit: bool) -> String {
    let why = watch(|| match local.status().cuda {
        CudaState::On(cuda) => cuda.lost,
        CudaState::Off { .. } => None,
    })
    .await;
    tracing::error!(why, "the CUDA device is lost");
    if exit { why } else { pending().await }
}

async fn watch(lost: impl Fn() -> Option<String>) -> String {
    loop {
        if let Some(why) = lost() {
            return why;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_seen_within_a_look() {
        let begun = tokio::time::Instant::now();
        let looks = Cell::new(0);
        let why = watch(|| {
            looks.set(looks.get() + 1);
            (looks.get() == 4).then(|| "it fell off the bus".to_owned())
        })
        .await;
        assert_eq!((why.as_str(), begun.elapsed()), ("it fell off the bus", 3 * LOOK));
    }
}
