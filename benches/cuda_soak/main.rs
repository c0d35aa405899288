//! The soak on a device: minutes at full load through the whole pipeline, and the books at the end.
//!
//! ```text
//! cargo bench --bench cuda_soak -- 600          ten minutes
//! cargo bench --bench cuda_soak -- 60 42        one, from the seed 42
//! ```
//!
//! It ends with 1 where anything does not hold, and says `skipped` where there is no device.

// The kernels of the soak have device code, which is a promise.
#![allow(unsafe_code)]

#[allow(dead_code, reason = "a part of it is for the soak on the CPU")]
#[path = "../../tests/stress/soak/harness/mod.rs"]
mod harness;
#[path = "../cuda/hold.rs"]
mod hold;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tower::ServiceBuilder;
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::layers::{MetricsLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};

use harness::kernels::{Greedy, Panic, without_words};
use harness::work::Pin;
use harness::{Scale, Settings, Works, soak};
use hold::Hold;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (seconds, seed) = (numbers.next().unwrap_or(20), numbers.next().unwrap_or(1));
    // So that what is idle has gone when the books are made.
    let config = CudaConfig { idle_memory_ttl: Duration::from_secs(2), ..Default::default() };
    let cuda = match CudaBackend::with_config(0, config) {
        Ok(cuda) => cuda,
        Err(why) => {
            println!("skipped: no CUDA device ({why})");
            return ExitCode::SUCCESS;
        }
    };
    let tasks = 4 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let settings =
        Settings { time: Duration::from_secs(seconds), seed, tasks, greedy: true, rest: Duration::from_secs(10) };
    println!("{}, {settings:?}", cuda.device().name);
    without_words();

    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).expect("distinct names");
    registry.register(Hold).expect("distinct names");
    registry.register(Panic).expect("distinct names");
    registry.register(Greedy).expect("distinct names");
    let local = Local::with_backends(CpuBackend::new(), Ok(cuda.clone()));
    let metrics = MetricsLayer::new().operations(Works::KERNELS);
    let service = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(TimeoutLayer::new(Duration::from_secs(60)))
        .service(KernelService::with_backend(registry, local.clone()));

    let handle = metrics.handle();
    let gauges = || {
        let (cpu, cuda) = (local.status().cpu.pool, cuda.status());
        vec![
            ("in flight", handle.in_flight()),
            ("queued on the CPU", cpu.queued as u64),
            ("running on the CPU", cpu.running as u64),
            ("queued on the device", cuda.pool.queued as u64),
            ("running on the device", cuda.pool.running as u64),
            ("waiting for device memory", cuda.usage.waiting as u64),
            ("device memory reserved", cuda.usage.device_reserved),
            ("device memory idle", cuda.usage.device_idle),
            ("pinned memory in use", cuda.usage.pinned_in_use),
            ("pinned memory", cuda.usage.pinned),
            ("lost", u64::from(cuda.lost.is_some())),
        ]
    };
    let free = || {
        let context = cudarc::driver::CudaContext::new(0).ok()?;
        context.mem_get_info().ok().map(|(free, _)| free as u64)
    };
    let pinned = cuda.pinned_memory().expect("this process has the device open").clone();
    let pin: Pin = Arc::new(move |array| pinned.copy_of(array));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let report = runtime.block_on(async {
        let works = Arc::new(Works::new(Scale::Full, settings.seed, Some(pin)).await);
        soak(&settings, service.clone(), works, &handle, gauges, free).await
    });
    let holds = report.print(settings.time);
    println!("{:?}", cuda.status().usage);
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
