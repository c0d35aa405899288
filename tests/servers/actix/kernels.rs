//! Kernels made to be watched, and what the tests share.

use std::future::Future;
use std::time::Duration;

use actix::{Addr, System};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower_kernels::actix::{ActorStats, ExecuteKernel, GetStats, KernelActor};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::service::{
    Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelService, RunContext,
};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Runs a test on an actix system; none of them may hang.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    System::new().block_on(async { tokio::time::timeout(SOON, test).await.expect("an end in time") })
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Done {
    done: bool,
}

/// Says when it starts and why it stops; runs until then.
pub(crate) struct Busy {
    started: UnboundedSender<()>,
    stopped: UnboundedSender<KernelError>,
}

/// A busy kernel's observer.
pub(crate) struct Watch {
    pub(crate) started: UnboundedReceiver<()>,
    pub(crate) stopped: UnboundedReceiver<KernelError>,
}

impl Kernel for Busy {
    type Input = Nothing;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/busy", "1.0.0", "Runs until it is told to stop.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost { bytes: 1 << 40, ..Cost::default() }
    }

    fn run_cpu(&self, _: &Nothing, context: &RunContext<'_>) -> Result<Done, KernelError> {
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

/// Panics, on a worker thread.
pub(crate) struct Panics;

impl Kernel for Panics {
    type Input = Nothing;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/panics", "1.0.0", "Panics.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost { bytes: 1 << 40, ..Cost::default() }
    }

    fn run_cpu(&self, _: &Nothing, _: &RunContext<'_>) -> Result<Done, KernelError> {
        panic!("as it was told to");
    }
}

/// The catalogue and the kernels above.
pub(crate) fn registry() -> (KernelRegistry, Watch) {
    let (started, has_started) = unbounded_channel();
    let (stopped, has_stopped) = unbounded_channel();
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Busy { started, stopped }).unwrap();
    registry.register(Panics).unwrap();
    (registry, Watch { started: has_started, stopped: has_stopped })
}

pub(crate) type Service = KernelService<CpuBackend>;

/// A service on a CPU backend of `workers` workers before a queue of `queue`.
pub(crate) fn service(workers: usize, queue: usize) -> (Service, Watch) {
    let (registry, watch) = registry();
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (workers, queue);
    (KernelService::with_backend(registry, CpuBackend::with_config(config).unwrap()), watch)
}

pub(crate) fn execute(kernel_id: &str, input: Value) -> ExecuteKernel {
    ExecuteKernel { kernel_id: kernel_id.to_owned(), input, metadata: Default::default() }
}

pub(crate) fn busy() -> ExecuteKernel {
    execute("test/busy", json!({}))
}

pub(crate) fn saxpy() -> ExecuteKernel {
    execute("linalg/saxpy", json!({"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}))
}

pub(crate) fn assert_adds_up(stats: &ActorStats) {
    let ended = stats.completed + stats.failed + stats.cancelled + stats.rejected;
    assert_eq!(stats.received, stats.in_flight + ended, "{stats:?}");
}

/// Asks for the statistics until they are as they should be.
pub(crate) async fn until<S: 'static>(actor: &Addr<KernelActor<S>>, holds: impl Fn(&ActorStats) -> bool) -> ActorStats {
    loop {
        let stats = actor.send(GetStats).await.unwrap();
        assert_adds_up(&stats);
        if holds(&stats) {
            return stats;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
