//! Kernels made to be watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::service::{
    Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelService, RunContext,
};

/// Costs far more than the inline bound.
pub(crate) const LARGE: Cost = Cost { bytes: 0, operations: 1 << 40, device_memory: 0 };

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    pub(crate) numbers: Buffer<f64>,
    #[serde(default)]
    pub(crate) scale: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Total {
    pub(crate) total: f64,
}

/// Adds numbers up.
pub(crate) struct Sum {
    pub(crate) cost: Cost,
}

impl Kernel for Sum {
    type Input = Numbers;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/sum", "1.0.0", "Adds numbers up.").alias("sum")
    }

    fn validate(&self, input: &Numbers) -> Result<(), InvalidInput> {
        match input.numbers.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(InvalidInput::new(format!("numbers[{at}]"), "not a finite number")),
            None => Ok(()),
        }
    }

    fn cost(&self, _: &Numbers) -> Cost {
        self.cost
    }

    fn run_cpu(&self, input: &Numbers, _: &RunContext<'_>) -> Result<Total, KernelError> {
        Ok(Total { total: input.numbers.iter().sum::<f64>() * input.scale.unwrap_or(1.0) })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

/// Reports that it has started, then runs until its context or the test stops it.
pub(crate) struct Busy {
    pub(crate) started: mpsc::SyncSender<()>,
    pub(crate) stopped: mpsc::SyncSender<KernelError>,
    pub(crate) runs: Arc<AtomicUsize>,
}

impl Kernel for Busy {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/busy", "1.0.0", "Runs until it is told to stop.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        LARGE
    }

    fn run_cpu(&self, _: &Nothing, context: &RunContext<'_>) -> Result<Total, KernelError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.started.send(()).unwrap();
        loop {
            if let Err(error) = context.check() {
                self.stopped.send(error.clone()).unwrap();
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Panics, with something whose own drop panics too where `twice` is set.
pub(crate) struct Panics {
    pub(crate) cost: Cost,
    pub(crate) twice: bool,
}

pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the panic's payload panics");
    }
}

impl Kernel for Panics {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/panics", "1.0.0", "Panics.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        self.cost
    }

    fn run_cpu(&self, _: &Nothing, _: &RunContext<'_>) -> Result<Total, KernelError> {
        if self.twice {
            std::panic::panic_any(Bomb);
        }
        panic!("as it was told to");
    }
}

/// A service on a CPU backend of `workers` workers before a queue of `queue`.
pub(crate) fn service(registry: KernelRegistry, workers: usize, queue: usize) -> KernelService<CpuBackend> {
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (workers, queue);
    KernelService::with_backend(registry, CpuBackend::with_config(config).unwrap())
}

/// A busy kernel's observer.
pub(crate) struct Watch {
    pub(crate) started: mpsc::Receiver<()>,
    pub(crate) stopped: mpsc::Receiver<KernelError>,
    pub(crate) runs: Arc<AtomicUsize>,
}

pub(crate) fn busy() -> (Busy, Watch) {
    let (started, has_started) = mpsc::sync_channel(16);
    let (stopped, has_stopped) = mpsc::sync_channel(16);
    let runs = Arc::new(AtomicUsize::new(0));
    let kernel = Busy { started, stopped, runs: Arc::clone(&runs) };
    (kernel, Watch { started: has_started, stopped: has_stopped, runs })
}
