//! Small requests with and without shared runs: one at a time, by offered load, and at saturation.
//!
//! Offered load is open: requests are made by the clock, each in a task of its own, whether or not the ones before have
//! completed. Latency is counted from when the request was due.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::embedded::{SAXPY, ptx};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::{BatchedLayer, Local};
use tower_kernels::cuda::{Launch, Module};
use tower_kernels::kernels::linalg::saxpy::{Saxpy, SaxpyInput, SaxpyOutput};
use tower_kernels::kernels::risk::option_pricing::{OptionKind, OptionPricingInput};
use tower_kernels::layers::BatchLayer;
use tower_kernels::pipeline::{BatchConfig, PipelineConfig, PipelineLayer, QueueConfig};
use tower_kernels::request::RequestContext;
use tower_kernels::service::{
    BackendKind, BatchKey, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRequest, KernelResponse,
    KernelService, LaunchContext, Payload,
};

use crate::{Cuda, Row, on_cuda, saxpy_input, service};

const EACH: Duration = Duration::from_millis(400);
const RATES: [f64; 7] = [20e3, 100e3, 200e3, 400e3, 800e3, 1.2e6, 2e6];
const IN_FLIGHT: [usize; 4] = [8, 64, 1024, 8192];
const WORKERS: [usize; 3] = [6, 8, 12];

pub(crate) fn run() {
    let off = service(|_| {});
    let layer = BatchedLayer::for_workers(8);
    let on = batched(&off, &layer);
    let runtime = several();
    for (name, id, input) in [
        ("saxpy(1024)", "linalg/saxpy", saxpy_input(1024)),
        ("option pricing(1024)", "risk/option-pricing", contracts()),
    ] {
        println!("\n{name}, one at a time, µs                 p50     p99   x off");
        alone(&off, &on, id, &input);

        println!("\n{name}, offered load                    off                              on");
        println!(
            "requests/s            completed    p50 µs    p99 µs   completed    p50 µs    p99 µs   requests a run"
        );
        for rate in RATES {
            print!("{rate:>10.0}           ");
            // Far past what it can do there is nothing to learn, and much to wait for.
            if rate <= 400e3 {
                offered(&runtime, &off, id, &input, rate).print();
            } else {
                print!("{:>10}{:>10}{:>10}", "-", "-", "-");
            }
            let before = layer.snapshot();
            offered(&runtime, &on, id, &input, rate).print();
            println!("{:>12.1}", a_run(&layer, before));
        }

        println!("\n{name}, in flight at all times            off                              on");
        println!(
            "in flight             completed    p50 µs    p99 µs   completed    p50 µs    p99 µs   requests a run"
        );
        for count in IN_FLIGHT {
            print!("{count:>10}           ");
            closed(&runtime, &off, id, &input, count).print();
            let before = layer.snapshot();
            closed(&runtime, &on, id, &input, count).print();
            println!("{:>12.1}", a_run(&layer, before));
        }

        println!("\n{name}, 8192 at all times, other limits  completed    p50 µs    p99 µs   requests a run");
        for (requests, in_flight) in [(64, 16), (256, 8), (256, 16), (512, 16)] {
            let layer = BatchedLayer::for_workers(8).max_requests(requests).in_flight(in_flight);
            let on = batched(&off, &layer);
            print!("{requests:>6} a run, {in_flight:>2} runs                  ");
            let figures = closed(&runtime, &on, id, &input, 8192);
            figures.print();
            println!("{:>12.1}", a_run(&layer, Default::default()));
            figures.print_threads();
        }
        for workers in WORKERS {
            let runtime = threads(workers);
            let before = layer.snapshot();
            print!("default limits, {workers:>2} threads of tokio     ");
            let figures = closed(&runtime, &on, id, &input, 8192);
            figures.print();
            println!("{:>12.1}", a_run(&layer, before));
            figures.print_threads();
        }
        println!("{:?}", off.backend().status().usage);
    }
}

/// The ready pipeline over the machine, as `tower-kernels serve` has it, without and with runs that requests share.
pub(crate) fn pipeline() {
    let off = service(|_| {});
    let local = Local::with_backends(CpuBackend::new(), Ok(off.backend().clone()));
    let over = |batch: Option<BatchConfig>| {
        let mut config = PipelineConfig::default();
        // No request may be rejected, however many there are.
        (config.load_shed, config.queue) = (None, Some(QueueConfig { capacity: 16_384, max_bytes: u64::MAX }));
        config.batch = batch;
        let layer = PipelineLayer::new(Arc::clone(off.registry()), config).unwrap();
        (layer.over(local.clone()), layer.handle())
    };
    let capacity = |places| NonZeroUsize::new(places).map(|capacity| BatchConfig { capacity, ..Default::default() });
    let (single, _) = over(None);
    let runtime = several();
    for (name, id, input) in [
        ("saxpy(1024)", "linalg/saxpy", saxpy_input(1024)),
        ("option pricing(1024)", "risk/option-pricing", contracts()),
    ] {
        println!("\n{name} through the pipeline, one at a time, µs");
        let (on, _) = over(Some(BatchConfig::default()));
        alone(&single, &on, id, &input);
        println!("\n{name} through the pipeline, at all times  completed    p50 µs    p99 µs   requests a run");
        for count in IN_FLIGHT {
            print!("{count:>6}, off                            ");
            closed(&runtime, &single, id, &input, count).print();
            println!();
            for places in [256, 1024, 4096, 16_384] {
                let (on, handle) = over(capacity(places));
                print!("{count:>6}, on, {places:>5} wait for a run       ");
                closed(&runtime, &on, id, &input, count).print();
                let stats = handle.batch().unwrap_or_default();
                println!("{:>12.1}", stats.requests as f64 / stats.batches.max(1) as f64);
            }
        }
    }
}

fn batched(service: &Cuda, layer: &BatchedLayer) -> KernelService<tower_kernels::backends::batched::Batched<Backend>> {
    KernelService::with_backend(Arc::clone(service.registry()), layer.layer(service.backend().clone()))
}

type Backend = tower_kernels::backends::cuda::CudaBackend;

fn threads(workers: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

/// What it costs the host.
pub(crate) fn cost() {
    layer_alone();
    phases(&several());
}

/// What the layer itself can do, around a service of batches that is ready at the second poll: 8192 tasks
/// at all times, and no device.
fn layer_alone() {
    println!("\nthe layer alone, 8192 at all times     completed    p50 µs    p99 µs   requests a batch");
    for workers in [1, 2, 4, 8, 16] {
        let runtime = threads(workers);
        let layer = BatchLayer::new(256).max_in_flight(16).capacity(16_384);
        let service = layer.layer(Together);
        print!("{workers:>2} threads of tokio                   ");
        let figures = closed_with(&runtime, 8192, |_| service.clone(), || Item);
        figures.print();
        let stats = layer.snapshot();
        println!("{:>12.1}", stats.requests as f64 / stats.batches.max(1) as f64);
        figures.print_threads();
    }
}

#[derive(Clone, Debug)]
struct Item;

impl RequestContext for Item {}

#[derive(Clone, Debug)]
struct Together;

impl Service<Vec<Item>> for Together {
    type Response = Vec<Result<(), Infallible>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, items: Vec<Item>) -> Self::Future {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(items.iter().map(|_| Ok(())).collect())
        })
    }
}

/// Where a shared run spends its time on the cuda.
fn phases(runtime: &Runtime) {
    let off = service(|_| {});
    off.registry().register(Phased).unwrap();
    println!("\nsaxpy(1024) in its phases, 8192 at all times: µs a run and µs a request");
    for in_flight in [8, 16] {
        let layer = BatchedLayer::for_workers(8).in_flight(in_flight);
        let on = batched(&off, &layer);
        PHASES.iter().for_each(|phase| phase.store(0, Ordering::Relaxed));
        let before = layer.snapshot();
        let figures = closed(runtime, &on, "bench/phased", &saxpy_input(1024), 8192);
        let stats = layer.snapshot();
        let (runs, requests) = (stats.batches - before.batches, stats.requests - before.requests);
        print!("{in_flight:>2} runs: {:>9.0} requests/s ", figures.rate);
        for (name, phase) in ["join", "launch", "wait and split"].iter().zip(&PHASES) {
            let micros = phase.load(Ordering::Relaxed) as f64 / 1e3;
            print!("  {name} {:.0} and {:.2}", micros / runs as f64, micros / requests as f64);
        }
        println!();
        figures.print_threads();
    }
}

/// Nanoseconds.
static PHASES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

// SAFETY: `Phased` passes what `saxpy.cu` says.
static CODE: LazyLock<Module> = LazyLock::new(|| unsafe { Module::from_ptx("bench/phased", ptx(SAXPY).leak()) });

struct Phased;

impl Kernel for Phased {
    type Input = SaxpyInput;
    type Output = SaxpyOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/phased", "1", "Saxpy with a clock.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &SaxpyInput) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &SaxpyInput) -> Cost {
        Saxpy.cost(input)
    }

    fn batch_key(&self, input: &SaxpyInput) -> Option<BatchKey> {
        Saxpy.batch_key(input)
    }

    fn run_cuda(&self, input: &SaxpyInput, cuda: &mut LaunchContext<'_>) -> Result<SaxpyOutput, KernelError> {
        Saxpy.run_cuda(input, cuda)
    }

    fn run_cuda_batch(
        &self,
        inputs: &[&SaxpyInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<SaxpyOutput>, KernelError> {
        let begun = Instant::now();
        let x = cuda.upload_parts(inputs.iter().map(|input| &input.x[..]))?;
        let y = cuda.upload_parts(inputs.iter().map(|input| &input.y[..]))?;
        let joined = Instant::now();
        let launch = Launch::elements(x.len().div_ceil(4), 1 << 20);
        cuda.launch(&CODE, "saxpy_f32", launch, &[&(x.len() as u64), &inputs[0].a, &x, &y, &y])?;
        let launched = Instant::now();
        let lengths: Vec<usize> = inputs.iter().map(|input| input.y.len()).collect();
        let outputs = cuda.download_parts(&y, &lengths)?.into_iter().map(|y| SaxpyOutput { y }).collect();
        for (phase, time) in PHASES.iter().zip([joined - begun, launched - joined, launched.elapsed()]) {
            phase.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
        Ok(outputs)
    }
}

fn several() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn contracts() -> Payload {
    let spread = |low: f32, step: f32| (0..1024).map(|index| low + step * index as f32).collect::<Vec<f32>>();
    Payload::typed(OptionPricingInput {
        spot: spread(80.0, 0.04).into(),
        strike: spread(90.0, 0.02).into(),
        rate: 0.03.into(),
        volatility: spread(0.1, 2e-4).into(),
        time: spread(0.25, 1e-3).into(),
        dividend_yield: 0.0.into(),
        kind: OptionKind::Call.into(),
        precision: None,
    })
}

/// Since then; 1 for those that went by themselves is not counted.
fn a_run(layer: &BatchedLayer, before: tower_kernels::middleware::batch::BatchSnapshot) -> f64 {
    let now = layer.snapshot();
    (now.requests - before.requests) as f64 / (now.batches - before.batches).max(1) as f64
}

/// In turns, so that neither has the better moment.
fn alone<A, B>(off: &A, on: &B, id: &'static str, input: &Payload)
where
    A: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, runtime) in [("current_thread", single()), ("multi_thread", several())] {
        let (mut base, mut with) = (Row::default(), Row::default());
        for _ in 0..6 {
            base.merge(one_by_one(&runtime, off.clone(), id, input));
            with.merge(one_by_one(&runtime, on.clone(), id, input));
        }
        base.print(&format!("off, {name}"), &base);
        with.print(&format!("on, {name}"), &base);
    }
}

fn one_by_one<S>(runtime: &Runtime, mut service: S, id: &'static str, input: &Payload) -> Row
where
    S: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send> + Send + 'static,
{
    let input = input.clone();
    let work = async move {
        let mut times = Vec::with_capacity(5_000);
        for index in 0..5_500 {
            let start = Instant::now();
            service.ready().await.unwrap().call(on_cuda(id, input.clone())).await.unwrap();
            if index >= 500 {
                times.push(start.elapsed());
            }
        }
        times
    };
    Row::of(runtime.block_on(async { tokio::spawn(work).await.unwrap() }))
}

/// Requests by the clock.
fn offered<S>(runtime: &Runtime, service: &S, id: &'static str, input: &Payload, rate: f64) -> Figures
where
    S: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    const CLOCKS: u32 = 6;
    let times: &'static Times = Box::leak(Box::default());
    let step = Duration::from_secs_f64(f64::from(CLOCKS) / rate);
    let begun = Instant::now();
    runtime.block_on(async {
        let clocks: Vec<_> = (0..CLOCKS)
            .map(|clock| {
                let (mut service, input) = (service.clone(), input.clone());
                tokio::spawn(async move {
                    let mut due = begun + step * clock / CLOCKS;
                    let mut made = 0;
                    while begun.elapsed() < EACH {
                        // Not too many without a pause, where the clock is behind.
                        for _ in 0..32 {
                            if due > Instant::now() {
                                break;
                            }
                            let request = on_cuda(id, input.clone());
                            let response = service.ready().await.unwrap().call(request);
                            let shard = made as usize;
                            tokio::spawn(async move {
                                response.await.unwrap();
                                times.add(shard, due.elapsed());
                            });
                            made += 1;
                            due += step;
                        }
                        tokio::task::yield_now().await;
                    }
                    made
                })
            })
            .collect();
        let mut made = 0;
        for clock in clocks {
            made += clock.await.unwrap();
        }
        while times.count() < made {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    times.figures(begun.elapsed())
}

/// So many tasks, each with one request after another.
fn closed<S>(runtime: &Runtime, service: &S, id: &'static str, input: &Payload, tasks: usize) -> Figures
where
    S: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    let input = input.clone();
    closed_with(runtime, tasks, |_| service.clone(), move || on_cuda(id, input.clone()))
}

fn closed_with<S, R>(
    runtime: &Runtime,
    tasks: usize,
    service: impl Fn(usize) -> S,
    request: impl Fn() -> R + Clone + Send + 'static,
) -> Figures
where
    S: Service<R, Error: std::fmt::Debug, Future: Send + 'static> + Send + 'static,
    S::Response: Send,
    R: Send + 'static,
{
    let round = |each: Duration| {
        let times = Arc::new(Times::default());
        let begun = Instant::now();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..tasks)
                .map(|shard| {
                    let (mut service, request, times) = (service(shard), request.clone(), Arc::clone(&times));
                    tokio::spawn(async move {
                        while begun.elapsed() < each {
                            let start = Instant::now();
                            service.ready().await.unwrap().call(request()).await.unwrap();
                            times.add(shard, start.elapsed());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        times.figures(begun.elapsed())
    };
    round(EACH / 4);
    let before = Threads::now();
    let figures = round(EACH);
    Figures { threads: Threads::now().since(&before), ..figures }
}

/// Time on processors, and in their run queues, of the workers and of tokio's threads, in seconds.
#[derive(Clone, Copy, Default)]
struct Threads {
    workers: [f64; 2],
    tokio: [f64; 2],
}

impl Threads {
    fn now() -> Self {
        let mut this = Self::default();
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, times) = (read("comm"), read("schedstat"));
            let mut times = times.split_whitespace().map(|nanos| nanos.parse::<f64>().unwrap_or(0.0) / 1e9);
            let threads = match () {
                () if name.contains("-worker-") => &mut this.workers,
                () if name.starts_with("tokio") => &mut this.tokio,
                () => continue,
            };
            threads.iter_mut().for_each(|time| *time += times.next().unwrap_or(0.0));
        }
        this
    }

    fn since(self, before: &Self) -> Self {
        let less = |now: [f64; 2], before: [f64; 2]| [now[0] - before[0], now[1] - before[1]];
        Self { workers: less(self.workers, before.workers), tokio: less(self.tokio, before.tokio) }
    }
}

/// Counts of times, 32 to each power of two nanoseconds, in shards that threads seldom share.
struct Times(Vec<Shard>);

struct Shard {
    counts: Vec<AtomicU32>,
    all: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        let shard = || Shard { counts: (0..64 * 32).map(|_| AtomicU32::new(0)).collect(), all: AtomicU64::new(0) };
        Self((0..16).map(|_| shard()).collect())
    }
}

impl Times {
    fn add(&self, shard: usize, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(32);
        let power = 63 - nanos.leading_zeros() as usize;
        let shard = &self.0[shard % 16];
        shard.counts[power * 32 + (nanos >> (power - 5) & 31) as usize].fetch_add(1, Ordering::Relaxed);
        shard.all.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|shard| shard.all.load(Ordering::Relaxed)).sum()
    }

    fn figures(&self, took: Duration) -> Figures {
        let count = self.count();
        let at = |share: f64| {
            let mut remaining = (count as f64 * share) as u64;
            for bucket in 0..64 * 32 {
                let here: u64 =
                    self.0.iter().map(|shard| u64::from(shard.counts[bucket].load(Ordering::Relaxed))).sum();
                if here > remaining {
                    let (power, part) = (bucket / 32, bucket % 32);
                    return (1u64 << power) as f64 * (1.0 + (part as f64 + 0.5) / 32.0) / 1e3;
                }
                remaining -= here;
            }
            0.0
        };
        let seconds = took.as_secs_f64();
        Figures { rate: count as f64 / seconds, seconds, p50: at(0.5), p99: at(0.99), threads: Threads::default() }
    }
}

struct Figures {
    rate: f64,
    seconds: f64,
    threads: Threads,
    /// Microseconds.
    p50: f64,
    p99: f64,
}

impl Figures {
    fn print(&self) {
        print!("{:>10.0}{:>10.1}{:>10.1}  ", self.rate, self.p50, self.p99);
    }

    /// The processor time of each kind of thread, in cores and in microseconds a request, and the time in run queues, in cores.
    fn print_threads(&self) {
        let requests = self.rate * self.seconds;
        for (name, [ran, waited]) in [("workers", self.threads.workers), ("tokio", self.threads.tokio)] {
            let (cores, micros) = (ran / self.seconds, ran / requests * 1e6);
            print!("  {name} {cores:>5.1} cores ({:.1} in run queues) {micros:>5.2} µs", waited / self.seconds);
        }
        println!();
    }
}
