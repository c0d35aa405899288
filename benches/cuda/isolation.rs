//! What it costs that a process of its own has the device open, and what a fault costs then.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::BatchedLayer;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::backends::process::ProcessConfig;
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};

use crate::device_faults::{DeviceFault, Fault};
use crate::{Cuda, saxpy_input};

/// The kernels of this program, in its device processes as well.
pub(crate) fn registry() -> KernelRegistry {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(DeviceFault).unwrap();
    registry
}

const WORKERS: usize = 8;

fn here() -> Cuda {
    let config = CudaConfig { workers: WORKERS, queue: 10_000, ..CudaConfig::default() };
    KernelService::with_backend(registry(), CudaBackend::with_config(0, config).unwrap())
}

fn isolated(standby: bool) -> Cuda {
    isolated_with(WORKERS, ProcessConfig { standby, ..ProcessConfig::default() })
}

fn isolated_with(workers: usize, processes: ProcessConfig) -> Cuda {
    let standby = processes.standby;
    let config = CudaConfig { workers, queue: 10_000, ..CudaConfig::default() };
    let processes = ProcessConfig { max_faults: 0, ..processes };
    let service = KernelService::with_backend(registry(), CudaBackend::isolated(0, &config, &processes).unwrap());
    while standby && service.backend().processes().unwrap().standby_pid.is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    service
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(6).enable_all().build().unwrap()
}

/// What the number of workers and the time for which they spin change.
pub(crate) fn settings() {
    let runtime = runtime();
    println!("\nisolated, by settings     busy p50, us   each 1 ms, us   requests/s with 8, 64, 1024 in flight");
    for (workers, spin) in [(8, 50), (8, 0), (8, 100), (8, 200), (4, 50), (4, 100), (5, 100), (2, 100)] {
        let spin = Duration::from_micros(spin);
        let service = isolated_with(workers, ProcessConfig { spin, standby: false, ..ProcessConfig::default() });
        let input = saxpy_input(1024);
        let (busy, _) = runtime.block_on(latency(&service, &input, 3000, Duration::ZERO));
        let (paced, _) = runtime.block_on(latency(&service, &input, 1000, Duration::from_millis(1)));
        let [few, some, many] =
            [8, 64, 1024].map(|in_flight| runtime.block_on(shared_runs(&service, workers, in_flight)));
        let name = format!("{workers} workers, spin {spin:?}");
        println!("{name:<26}{busy:>12.1}{paced:>16.1}{few:>18.0}{some:>10.0}{many:>10.0}");
    }
}

pub(crate) fn run() {
    let runtime = runtime();
    let before = device_memory();
    let alone = isolated(false);
    let with_one = device_memory();
    drop(alone);
    std::thread::sleep(Duration::from_secs(1));
    let service = isolated(true);
    // The standby loads its device code in the background.
    std::thread::sleep(Duration::from_secs(5));
    let with_two = device_memory();
    println!("\ndevice memory, MiB: {before} before, {with_one} with a process, {with_two} with a standby");

    let here = here();
    println!("\nsaxpy, one at a time, us            here p50     p99   isolated p50     p99");
    for (name, len, pause) in [
        ("1 024 elements, busy", 1024, Duration::ZERO),
        ("1 024 elements, each 1 ms", 1024, Duration::from_millis(1)),
        ("1M elements, busy", 1 << 20, Duration::ZERO),
        ("4M elements (16 MB), busy", 4 << 20, Duration::ZERO),
    ] {
        let input = saxpy_input(len);
        let count = if len > 2048 { 200 } else { 3000 };
        let [(p50, p99), (isolated_p50, isolated_p99)] =
            [&here, &service].map(|service| runtime.block_on(latency(service, &input, count, pause)));
        println!("{name:<32}{p50:>12.1}{p99:>8.1}{isolated_p50:>15.1}{isolated_p99:>8.1}");
    }

    println!("\nsaxpy(1024) with shared runs        here requests/s   isolated requests/s   ratio");
    for in_flight in [8, 64, 1024] {
        let [here, isolated] =
            [&here, &service].map(|service| runtime.block_on(shared_runs(service, WORKERS, in_flight)));
        println!("{in_flight:>6} in flight{here:>34.0}{isolated:>22.0}{:>8.2}", isolated / here);
    }
    drop(here);

    println!("\na fault, ms                         its error     the next response");
    for fault in [Fault::IllegalAddress, Fault::MisalignedAddress, Fault::Trap, Fault::Abort] {
        let (mut errors, mut responses) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            while service.backend().processes().unwrap().standby_pid.is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let start = Instant::now();
            let request = KernelRequest::new("test/device-fault", Payload::typed(fault));
            runtime.block_on(service.clone().oneshot(request)).unwrap_err();
            errors.push(start.elapsed());
            let request = KernelRequest::new("linalg/saxpy", saxpy_input(1024));
            runtime.block_on(service.clone().oneshot(request)).unwrap();
            responses.push(start.elapsed());
        }
        errors.sort();
        responses.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:<32}{:>13.1}{:>22.1} (worst {:.1})",
            format!("{fault:?}"),
            ms(errors[2]),
            ms(responses[2]),
            ms(responses[4])
        );
    }
    runtime.block_on(chaos(&service));
    drop(service);
    std::thread::sleep(Duration::from_secs(1));
    println!("device memory afterwards, MiB: {}", device_memory());
}

/// Faults under load: 100 in a minute, beside 1 000 requests a second of another kernel.
async fn chaos(service: &Cuda) {
    const FAULTS: u32 = 100;
    const EVERY: Duration = Duration::from_millis(600);
    let failed = Arc::new(AtomicU64::new(0));
    let (times, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let start = Instant::now();
    let load = {
        let (service, failed, times) = (service.clone(), Arc::clone(&failed), times.clone());
        tokio::spawn(async move {
            let mut due = tokio::time::interval(Duration::from_millis(1));
            while start.elapsed() < EVERY * FAULTS {
                due.tick().await;
                let (service, failed, times) = (service.clone(), Arc::clone(&failed), times.clone());
                tokio::spawn(async move {
                    let start = Instant::now();
                    match service.oneshot(KernelRequest::new("linalg/saxpy", saxpy_input(1024))).await {
                        Ok(_) => drop(times.send(start.elapsed())),
                        Err(error) => {
                            println!("    an innocent request failed: {error:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        })
    };
    drop(times);
    let mut faults = 0;
    for at in 0..FAULTS {
        let fault = [Fault::IllegalAddress, Fault::MisalignedAddress, Fault::Trap, Fault::Abort][at as usize % 4];
        let request = KernelRequest::new("test/device-fault", Payload::typed(fault));
        faults += u32::from(service.clone().oneshot(request).await.is_err());
        let due = EVERY * (at + 1);
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
    }
    load.await.unwrap();
    let mut latencies = Vec::new();
    while let Some(latency) = finished.recv().await {
        latencies.push(latency);
    }
    latencies.sort();
    let at = |part: usize| latencies[latencies.len() * part / 1000].as_secs_f64() * 1e3;
    println!(
        "\n{faults} faults in {:.0} s beside {} requests of another kernel: {} of these failed; p50 {:.2} ms, p99 {:.1} ms, p99.9 {:.1} ms",
        start.elapsed().as_secs_f64(),
        latencies.len(),
        failed.load(Ordering::Relaxed),
        at(500),
        at(990),
        at(999),
    );
}

async fn latency(service: &Cuda, input: &Payload, count: usize, pause: Duration) -> (f64, f64) {
    let mut service = service.clone();
    let mut times = Vec::new();
    for at in 0..count + 20 {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let request = KernelRequest::new("linalg/saxpy", input.clone());
        let start = Instant::now();
        service.ready().await.unwrap().call(request).await.unwrap();
        if at >= 20 {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

async fn shared_runs(service: &Cuda, workers: usize, in_flight: usize) -> f64 {
    let backend = BatchedLayer::for_workers(workers).layer(service.backend().clone());
    throughput(KernelService::with_backend(Arc::clone(service.registry()), backend), saxpy_input(1024), in_flight).await
}

async fn throughput<S>(service: S, input: Payload, in_flight: usize) -> f64
where
    S: Service<KernelRequest, Future: Send, Error: std::fmt::Debug> + Clone + Send + 'static,
{
    const EACH: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (mut service, input) = (service.clone(), input.clone());
            tokio::spawn(async move {
                let mut count = 0_u64;
                while start.elapsed() < EACH {
                    let request = KernelRequest::new("linalg/saxpy", input.clone());
                    service.ready().await.unwrap().call(request).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// The memory of the device that is in use, in MiB.
fn device_memory() -> String {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output();
    output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
