//! The CUDA backend compared with plain cudarc. It needs a GPU, and says so where there is none.
//!
//! ```text
//! cargo bench --bench cuda
//! cargo bench --bench cuda -- small workers
//! ```
//!
//! The second runs parts of it: `small`, `memory`, `catalogue`, `resident`, `workers`, `priority`, `graphs`,
//! `triangles`, `operands`, `pagerank`, `neural-network`, `devices`, `telemetry`, `batch`, `batch-cost`,
//! `batch-pipeline`, `similarity`, `traversal`, `communities`, `neighborhoods`,
//! `motifs`, `crossover`, and with the feature `isolation` the parts `isolation` and
//! `isolation-settings`.

// The plain loop, and the kernels here, are promises about device code.
#![allow(unsafe_code)]

mod batch;
mod catalogue;
mod communities;
mod crossover;
#[cfg(all(feature = "isolation", target_os = "linux"))]
#[path = "../../tests/support/device_faults.rs"]
mod device_faults;
mod devices;
mod embedded;
mod graphs;
mod hold;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod isolation;
mod kernels;
mod motifs;
mod neighborhoods;
mod neural_network;
mod operands;
mod pagerank;
mod priority;
mod raw;
mod resident;
mod similarity;
mod telemetry;
mod traversal;
mod triangles;
mod workers;

use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::cuda::{self};
use tower_kernels::service::{
    BackendKind, DType, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload, Tensor, Tensors,
};

use hold::Hold;
use kernels::{Empty, Nothing, Phases};
use tower_kernels::kernels::linalg::saxpy::SaxpyInput;

pub(crate) const EMPTY_PTX: &str = ".version 8.2\n.target sm_75\n.address_size 64\n.visible .entry empty() { ret; }\n";

pub(crate) type Cuda = KernelService<CudaBackend>;

fn main() {
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    tower_kernels::backends::process::run_device_process(isolation::registry);
    let device = match cuda::devices() {
        Ok(devices) => devices[0].clone(),
        Err(why) => {
            println!("skipped: no CUDA device ({why})");
            return;
        }
    };
    println!("{device:?}, {} processors", std::thread::available_parallelism().unwrap());
    let raw = raw::Raw::new();
    let parts: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wanted("small") {
        latency(&raw);
        throughput(&raw);
    }
    if wanted("memory") {
        large(&raw);
    }
    if wanted("catalogue") {
        catalogue::run();
    } else if wanted("memory") {
        catalogue::pricing_rows();
    }
    if wanted("resident") {
        resident::run();
    }
    if wanted("workers") {
        workers::run();
    }
    if wanted("priority") {
        priority::run();
    }
    if wanted("graphs") {
        graphs::run();
    }
    if wanted("triangles") {
        triangles::run();
    }
    if wanted("operands") {
        operands::run();
    }
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    if wanted("isolation-settings") {
        isolation::settings();
    }
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    if wanted("isolation") {
        isolation::run();
    }
    if wanted("pagerank") {
        pagerank::run();
    }
    if wanted("neural-network") {
        neural_network::run();
    }
    if wanted("devices") {
        devices::run();
    }
    if wanted("telemetry") {
        telemetry::run();
    }
    if wanted("batch") {
        batch::run();
    }
    if wanted("batch-cost") {
        batch::cost();
    }
    if wanted("batch-pipeline") {
        batch::pipeline();
    }
    if wanted("similarity") {
        similarity::run();
    }
    if wanted("neighborhoods") {
        neighborhoods::run();
    }
    if wanted("traversal") {
        traversal::run();
    }
    if wanted("motifs") {
        motifs::run();
    }
    if wanted("communities") {
        communities::run();
    }
    if wanted("crossover") {
        crossover::run();
    }
}

pub(crate) fn service(change: impl FnOnce(&mut CudaConfig)) -> Cuda {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Empty).unwrap();
    registry.register(Phases).unwrap();
    registry.register(Hold).unwrap();
    let mut config = CudaConfig { workers: 8, ..Default::default() };
    change(&mut config);
    KernelService::with_backend(registry, CudaBackend::with_config(0, config).unwrap())
}

/// A request that runs on a device, whatever is faster.
pub(crate) fn on_cuda(id: &'static str, payload: Payload) -> KernelRequest {
    let mut request = KernelRequest::new(id, payload);
    request.set_backend(BackendKind::Cuda);
    request
}

pub(crate) async fn call(service: &mut Cuda, id: &'static str, payload: &Payload) -> KernelResponse {
    let request = on_cuda(id, payload.clone());
    service.ready().await.unwrap().call(request).await.unwrap()
}

pub(crate) fn saxpy_input(len: usize) -> Payload {
    Payload::typed(SaxpyInput { a: 2.0, x: vec![1.0; len].into(), y: vec![2.0; len].into() })
}

fn latency(raw: &raw::Raw) {
    const COUNT: usize = 20_000;
    println!("\none request at a time, µs             p50     p99   x raw   queued  executed  rest");
    let base = Row::of(raw.empty(COUNT));
    base.print("raw: empty launch + sync", &base);
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let several = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let nothing = Payload::typed(Nothing {});
    served(&single(), service(|_| {}), "bench/empty", &nothing, COUNT).print("service: empty, current_thread", &base);

    let base = Row::of(raw.saxpy(1024, COUNT));
    base.print("raw: saxpy 1024, pinned", &base);
    Row::of(raw.saxpy_with_copies(1024, COUNT)).print("raw: the same, with host copies", &base);
    let input = saxpy_input(1024);
    for busy_poll in [0, 30] {
        let service = || service(|config| config.busy_poll = Duration::from_micros(busy_poll));
        for (name, runtime) in [("current_thread", single()), ("multi_thread", several())] {
            let name = format!("service: saxpy 1024, {name}, busy poll {busy_poll}");
            served(&runtime, service(), "linalg/saxpy", &input, COUNT).print(&name, &base);
        }
    }
}

pub(crate) fn served(
    runtime: &tokio::runtime::Runtime,
    mut service: Cuda,
    id: &'static str,
    input: &Payload,
    count: usize,
) -> Row {
    let input = input.clone();
    let work = async move {
        for _ in 0..1000 {
            call(&mut service, id, &input).await;
        }
        let mut row = Row::default();
        for _ in 0..count {
            let start = Instant::now();
            let response = call(&mut service, id, &input).await;
            row.total.push(start.elapsed());
            row.queued.push(response.execution.queued);
            row.executed.push(response.execution.executed);
        }
        row
    };
    // On a thread of the runtime where it has any: `block_on` alone would run it on this one.
    let mut row = runtime.block_on(async { tokio::spawn(work).await.unwrap() });
    row.sort();
    row
}

fn throughput(raw: &raw::Raw) {
    println!("\nmany requests of saxpy 1024            requests/s   x raw");
    let base = raw.throughput(8, 20_000);
    println!("raw: 8 threads                        {base:>10.0}    1.00");
    for busy_poll in [0, 30] {
        for tasks in [8, 32, 128] {
            let service = service(|config| config.busy_poll = Duration::from_micros(busy_poll));
            let rate = served_throughput(&service, tasks, 160_000 / tasks);
            println!(
                "service: 8 workers, {tasks:>3} tasks, busy poll {busy_poll:>2} {rate:>10.0}   {:>5.2}",
                rate / base
            );
        }
    }
}

pub(crate) fn served_throughput(service: &Cuda, tasks: usize, each: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let input = saxpy_input(1024);
    runtime.block_on(async {
        let all = |each: usize| {
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    let (mut service, input) = (service.clone(), input.clone());
                    tokio::spawn(async move {
                        for _ in 0..each {
                            call(&mut service, "linalg/saxpy", &input).await;
                        }
                    })
                })
                .collect();
            async {
                for task in tasks {
                    task.await.unwrap();
                }
            }
        };
        all(each / 10).await;
        let begun = Instant::now();
        all(each).await;
        (tasks * each) as f64 / begun.elapsed().as_secs_f64()
    })
}

fn large(raw: &raw::Raw) {
    const LEN: usize = 1 << 20;
    println!("\nsaxpy 1M, µs                          p50     p99   x raw   queued  executed  rest");
    let base = Row::of(raw.saxpy(LEN, 500));
    base.print("raw: pinned", &base);
    Row::of(raw.saxpy_with_copies(LEN, 500)).print("raw: with host copies", &base);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let input = saxpy_input(LEN);
    for copy_threads in [0, 2, 4, 8] {
        let service = service(|config| config.copy_threads = copy_threads);
        served(&runtime, service, "linalg/saxpy", &input, 500)
            .print(&format!("from pageable, {copy_threads} copy threads"), &base);
    }
    served(&runtime, service(|config| config.pinned_bytes = 0), "linalg/saxpy", &input, 500)
        .print("from pageable, no pinned memory", &base);
    payloads(&base);
    thresholds();
    pinning();
}

/// The forms that a payload can come in.
fn payloads(base: &Row) {
    const LEN: usize = 1 << 20;
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let several = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for busy_poll in [30, 1000] {
        for (name, runtime) in [("current", single()), ("multi", several())] {
            let service = service(|config| config.busy_poll = Duration::from_micros(busy_poll));
            let input = pinned_input(&service, LEN);
            let name = format!("pinned payload, {name}, busy poll {busy_poll}");
            served(&runtime, service, "linalg/saxpy", &input, 1000).print(&name, base);
        }
    }
    let service = service(|_| {});
    let fallbacks = |when: &str| assert_eq!(service.backend().status().usage.pinned_fallbacks, 0, "{when}");
    served(&several(), service.clone(), "linalg/saxpy", &tensors(LEN), 500).print("from tensors", base);
    fallbacks("tensors");
    let response = several().block_on(call(&mut service.clone(), "linalg/saxpy", &tensors(LEN))).payload;
    let Payload::Tensors(response) = response else { panic!("tensors in, tensors out") };
    let y = response.get("y").unwrap();
    let input = tensors_of(y.clone(), y.clone());
    served(&several(), service.clone(), "linalg/saxpy", &input, 500).print("from tensors of an response", base);
    fallbacks("tensors of an response");
}

pub(crate) fn pinned_input(service: &Cuda, len: usize) -> Payload {
    let memory = service.backend().pinned_memory().expect("this process has the device open");
    let [x, y] = [1.0, 2.0].map(|value| memory.copy_of(&vec![value; len]).expect("pinned memory"));
    Payload::typed(SaxpyInput { a: 2.0, x, y })
}

fn tensors(len: usize) -> Payload {
    let array = |value: f32| {
        let bytes: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), len).flatten().collect();
        Tensor::new(DType::F32, vec![len], bytes.into()).unwrap()
    };
    tensors_of(array(1.0), array(2.0))
}

fn tensors_of(x: Tensor, y: Tensor) -> Payload {
    let mut tensors = Tensors::new();
    tensors.insert("a", Tensor::new(DType::F32, vec![], 2.0_f32.to_le_bytes().to_vec().into()).unwrap()).unwrap();
    tensors.insert("x", x).unwrap();
    tensors.insert("y", y).unwrap();
    tensors.into()
}

/// From where on pinned memory pays.
fn thresholds() {
    println!("\nsaxpy, KiB an array, µs               p50     p99   x all staged");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for kib in [512, 1024, 2048, 8192] {
        let len = kib << 8;
        let staged = service(|config| config.pinned_bytes = 0);
        let base = served(&runtime, staged, "linalg/saxpy", &saxpy_input(len), 500);
        base.print(&format!("{kib}: staged both ways"), &base);
        served(&runtime, service(|_| {}), "linalg/saxpy", &saxpy_input(len), 500).print("    response pinned", &base);
        let pinned = service(|_| {});
        let input = pinned_input(&pinned, len);
        served(&runtime, pinned, "linalg/saxpy", &input, 500).print("    payload and response pinned", &base);
    }
}

/// What it costs to pin.
fn pinning() {
    let service = service(|_| {});
    let memory = service.backend().pinned_memory().expect("this process has the device open");
    for mib in [2_usize, 16, 64, 256] {
        let context = cudarc::driver::CudaContext::new(0).unwrap();
        let start = Instant::now();
        // SAFETY: nothing reads it.
        let host = unsafe { context.alloc_pinned_with_flags::<u8>(mib << 20, 0) }.unwrap();
        let driver = start.elapsed();
        drop(host);
        let start = Instant::now();
        let ours = memory.zeroed::<u8>(mib << 20).expect("pinned memory");
        let first = start.elapsed();
        drop(ours);
        let start = Instant::now();
        drop(memory.zeroed::<u8>(mib << 20));
        let again = start.elapsed();
        println!(
            "    {mib} MiB pinned: driver's own {driver:.1?}, pool {first:.1?} with zeroing, {again:.1?} when it is there"
        );
    }
    println!("    {:?}", service.backend().status().usage);
}

pub(crate) fn sample(count: usize, mut run: impl FnMut()) -> Vec<Duration> {
    (0..count / 10).for_each(|_| run());
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..count).map(timed).collect()
}

#[derive(Default)]
pub(crate) struct Row {
    total: Vec<Duration>,
    queued: Vec<Duration>,
    executed: Vec<Duration>,
}

impl Row {
    pub(crate) fn of(total: Vec<Duration>) -> Self {
        let mut row = Self { total, ..Self::default() };
        row.sort();
        row
    }

    /// In seconds.
    pub(crate) fn mean(&self) -> f64 {
        self.total.iter().sum::<Duration>().as_secs_f64() / self.total.len() as f64
    }

    /// With what another run of the same took.
    pub(crate) fn merge(&mut self, other: Self) {
        self.total.extend(other.total);
        self.queued.extend(other.queued);
        self.executed.extend(other.executed);
        self.sort();
    }

    fn sort(&mut self) {
        [&mut self.total, &mut self.queued, &mut self.executed].into_iter().for_each(|times| times.sort());
    }

    fn micros(&self, share: f64) -> f64 {
        at(&self.total, share)
    }

    pub(crate) fn print(&self, name: &str, base: &Self) {
        let p50 = at(&self.total, 0.5);
        print!("{name:<42}{p50:>8.1}{:>8.1}{:>8.2}", at(&self.total, 0.99), p50 / at(&base.total, 0.5));
        if !self.queued.is_empty() {
            let (queued, executed) = (at(&self.queued, 0.5), at(&self.executed, 0.5));
            print!("{queued:>9.1}{executed:>9.1}{:>8.1}", p50 - queued - executed);
        }
        println!();
    }
}

/// Microseconds, of times that are sorted.
fn at(times: &[Duration], share: f64) -> f64 {
    let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
