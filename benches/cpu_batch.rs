//! Throughput and latency of shared runs on the CPU: `cargo bench --bench cpu_batch`, on a machine without CUDA devices.
//!
//! The pipeline over the machine, alternately without and with `batch` (`on_cpu`): requests for saxpy, which runs inside the
//! call, and for kernels that take 25, 50 and 200 µs of a worker. Each of 1, 4 or 64 callers has one request in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::pipeline::{BatchConfig, LocalPipeline, PipelineConfig, PipelineLayer};
use tower_kernels::service::{
    BatchKey, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, Payload, RunContext,
};

const EACH: Duration = Duration::from_millis(250);
const ROUNDS: usize = 6;

#[tokio::main]
async fn main() {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).expect("the catalogue");
    let busy = [("bench/25", 25), ("bench/50", 50), ("bench/200", 200)];
    for (id, micros) in busy {
        registry.register(Busy { id, micros }).expect("an id of its own");
    }
    let local = Local::detect();
    println!("{}", local.status());
    let over = |batch| {
        let mut config = PipelineConfig::default();
        // Nothing is shed.
        (config.load_shed, config.batch) = (None, batch);
        let layer = PipelineLayer::new(Arc::clone(&registry), config).expect("a pipeline");
        (layer.over(local.clone()), layer.handle())
    };
    let (off, _) = over(None);
    println!("kernel, callers           off: requests/s   p50 µs   p99 µs   on: x requests    x p50    x p99   a run");
    let saxpy = Payload::json(r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#);
    let number = Payload::json(r#"{"number": 1}"#);
    let cases = std::iter::once(("linalg/saxpy", &saxpy)).chain(busy.map(|(id, _)| (id, &number)));
    for (id, input) in cases {
        for callers in [1, 4, 64] {
            let (on, handle) = over(Some(BatchConfig { on_cpu: true, ..BatchConfig::default() }));
            let mut sums = [[0.0; 3]; 2];
            for _ in 0..ROUNDS {
                for (sum, pipeline) in sums.iter_mut().zip([&off, &on]) {
                    let round = closed(pipeline, id, input, callers).await;
                    sum.iter_mut().zip(round).for_each(|(sum, figure)| *sum += figure / ROUNDS as f64);
                }
            }
            let [off, on] = sums;
            let stats = handle.batch().unwrap_or_default();
            println!(
                "{id:<14}{callers:>8}{:>20.0}{:>9.1}{:>9.1}{:>17.2}{:>9.2}{:>9.2}{:>8.1}",
                off[0],
                off[1],
                off[2],
                on[0] / off[0],
                on[1] / off[1],
                on[2] / off[2],
                stats.requests as f64 / stats.batches.max(1) as f64
            );
        }
    }
}

/// Requests a second, and the 50th and 99th percentiles of their latencies in microseconds.
async fn closed(pipeline: &LocalPipeline, id: &'static str, input: &Payload, callers: usize) -> [f64; 3] {
    let begun = Instant::now();
    let caller = |_| {
        let (mut pipeline, input) = (pipeline.clone(), input.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < EACH {
                let start = Instant::now();
                let service = pipeline.ready().await.expect("it is ready");
                service.call(KernelRequest::new(id, input.clone())).await.expect("a response");
                times.push(start.elapsed());
            }
            times
        })
    };
    let callers: Vec<_> = (0..callers).map(caller).collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("it does not panic"));
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    [rate, at(0.5), at(0.99)]
}

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
struct Number {
    number: f64,
}

/// Keeps a worker busy for this long.
struct Busy {
    id: &'static str,
    micros: u64,
}

impl Kernel for Busy {
    type Input = Number;
    type Output = Number;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(self.id, "1", "Spins for a while.")
    }
    fn validate(&self, _: &Number) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// At the 2e9 operations a second that the CPU backend counts on.
    fn cost(&self, _: &Number) -> Cost {
        Cost { operations: self.micros * 2000, ..Cost::default() }
    }
    fn batch_key(&self, _: &Number) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
    fn run_cpu(&self, input: &Number, _: &RunContext<'_>) -> Result<Number, KernelError> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(self.micros) {
            std::hint::spin_loop();
        }
        Ok(input.clone())
    }
}
