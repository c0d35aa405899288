//! What the layers of the pipeline cost while many small requests are in flight: `cargo bench --bench saturation`, on any
//! machine.
//!
//! A constant number of requests is in flight, each in a task of its own. The backend alone, then the pipeline around it, and
//! the pipeline without each layer in turn. Requests and microseconds of processor time are medians of rounds in which the
//! cases take turns, so that none has the better moment.
//!
//! * Shared and single runs: the CPU backend, and a kernel that takes no time of its workers, so that what is measured is the
//!   way there and back. Single runs wait in the priority queue.
//! * 512 at a time: a backend that responds when it is polled again, without threads, so that two runs have the same
//!   instructions.
//!
//! `TOKIO_WORKER_THREADS=1 cargo bench --bench saturation -- "512 at a time, pipeline" 1024 20000` makes that many requests
//! of one case on one thread, for a profiler: the difference of two such runs is free of what the start costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::{BatchedLayer, Local};
use tower_kernels::pipeline::{BatchConfig, LoadShedConfig, PipelineConfig, PipelineLayer, QueueConfig};
use tower_kernels::request::Execution;
use tower_kernels::service::{
    BatchKey, Cost, InvalidInput, Job, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelResponse,
    KernelService, Payload, RunContext,
};

const EACH: Duration = Duration::from_millis(200);
const ROUNDS: usize = 7;
const IN_FLIGHT: [usize; 2] = [1024, 8192];

/// How long, or how often, requests are made.
#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Made(u64),
}

/// Requests per second, and microseconds of processor time a request.
#[derive(Clone, Copy, Default)]
struct Figures {
    rate: f64,
    micros: f64,
}

/// Keeps so many requests in flight.
type Run = Box<dyn Fn(&Runtime, usize, Until) -> Figures>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (runtime, cases) = (Runtime::new().expect("a runtime"), cases());
    if let [name, in_flight, requests] = &arguments[..] {
        let (_, run) = cases.iter().find(|(case, _)| case == name).expect("the name of a case");
        let in_flight = in_flight.parse().expect("a number");
        let Figures { rate, micros } = run(&runtime, in_flight, Until::Made(requests.parse().expect("a number")));
        println!("{rate:.0} requests/s, {micros:.2} µs of processor time each");
        return;
    }
    let mut figures = vec![[[Figures::default(); ROUNDS]; IN_FLIGHT.len()]; cases.len()];
    for round in 0..ROUNDS {
        for ((_, run), figures) in cases.iter().zip(&mut figures) {
            for (in_flight, figures) in IN_FLIGHT.into_iter().zip(figures) {
                figures[round] = run(&runtime, in_flight, Until::Elapsed(EACH));
            }
        }
    }
    println!("In flight: requests/s, x of the backend alone, µs of processor time a request");
    println!("{:<48}{:>22}{:>22}", "", IN_FLIGHT[0], IN_FLIGHT[1]);
    let mut backend = [0.0; IN_FLIGHT.len()];
    for ((name, _), figures) in cases.iter().zip(figures) {
        print!("{name:<48}");
        for (figures, backend) in figures.iter().zip(&mut backend) {
            let median = |of: fn(&Figures) -> f64| {
                let mut values = figures.each_ref().map(of);
                values.sort_by(f64::total_cmp);
                values[ROUNDS / 2]
            };
            let rate = median(|figures| figures.rate);
            if name.ends_with("backend") {
                *backend = rate;
            }
            print!("{rate:>10.0}{:>6.2}{:>6.2}", rate / *backend, median(|figures| figures.micros));
        }
        println!();
    }
}

fn cases() -> Vec<(String, Run)> {
    let registry = Arc::new(KernelRegistry::new());
    registry.register(Instantaneous).expect("an id of its own");
    let local = Local::detect();
    let mut cases = Vec::new();
    let batch = Some(BatchConfig { on_cpu: true, ..BatchConfig::default() });
    for (runs, batch) in [("shared runs", batch), ("single runs", None)] {
        let name = |case| format!("{runs}, {case}");
        let kernels = match batch {
            Some(_) => {
                let batched = BatchedLayer::over(&local).layer(local.clone());
                run(KernelService::with_backend(Arc::clone(&registry), batched))
            }
            None => run(KernelService::with_backend(Arc::clone(&registry), local.clone())),
        };
        cases.push((name("backend"), kernels));
        let over = |layer: PipelineLayer| run(layer.over(local.clone()));
        cases.extend(pipelines(&registry, batch.as_ref(), over).map(|(case, run)| (name(case), run)));
    }
    let kernels = KernelService::with_backend(Arc::clone(&registry), ConcurrencyLimit::new(Yielding, 512));
    cases.push(("512 at a time, backend".to_owned(), run(kernels.clone())));
    let around = |layer: PipelineLayer| run(layer.layer(kernels.clone()));
    let around = pipelines(&registry, None, around).map(|(case, run)| (format!("512 at a time, {case}"), run));
    cases.extend(around);
    cases
}

/// The pipeline, and without each layer in turn.
fn pipelines<'a>(
    registry: &'a Arc<KernelRegistry>,
    batch: Option<&'a BatchConfig>,
    build: impl Fn(PipelineLayer) -> Run + 'a,
) -> impl Iterator<Item = (&'static str, Run)> + 'a {
    type Change = (&'static str, fn(&mut PipelineConfig));
    let changes: [Change; 6] = [
        ("pipeline", |_| {}),
        ("pipeline without timeout", |config| config.timeout = Duration::MAX),
        ("pipeline without circuit breaker", |config| config.circuit_breaker = None),
        ("pipeline without queue", |config| config.queue = None),
        ("pipeline without these three", |config| {
            (config.timeout, config.circuit_breaker, config.queue) = (Duration::MAX, None, None);
        }),
        ("pipeline with load shedding", |config| config.load_shed = Some(LoadShedConfig { max_wait: Duration::MAX })),
    ];
    changes.into_iter().map(move |(name, change)| {
        // No request may be rejected, however many there are.
        let queue = Some(QueueConfig { capacity: 16_384, max_bytes: u64::MAX });
        let timeout = Duration::from_secs(3600);
        let mut config =
            PipelineConfig { timeout, load_shed: None, queue, batch: batch.cloned(), ..PipelineConfig::default() };
        change(&mut config);
        (name, build(PipelineLayer::new(Arc::clone(registry), config).expect("a pipeline")))
    })
}

fn run<S>(service: S) -> Run
where
    S: Service<KernelRequest, Response = KernelResponse, Error: std::fmt::Debug, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    Box::new(move |runtime, in_flight, until| {
        let made = Arc::new(AtomicU64::new(0));
        let (begun, processor) = (Instant::now(), processor_time());
        let caller = || {
            let (mut service, made) = (service.clone(), Arc::clone(&made));
            async move {
                let input = Payload::typed(Number { number: 1.0 });
                let is_over = || match until {
                    Until::Elapsed(time) => begun.elapsed() >= time,
                    Until::Made(requests) => made.load(Ordering::Relaxed) >= requests,
                };
                while !is_over() {
                    let request = KernelRequest::new("bench/instantaneous", input.clone());
                    service.ready().await.expect("it is ready").call(request).await.expect("a response");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        runtime.block_on(async {
            let callers: Vec<_> = (0..in_flight).map(|_| tokio::spawn(caller())).collect();
            for caller in callers {
                caller.await.expect("it does not panic");
            }
        });
        let made = made.load(Ordering::Relaxed) as f64;
        let processor = processor_time() - processor;
        Figures { rate: made / begun.elapsed().as_secs_f64(), micros: processor.as_secs_f64() * 1e6 / made }
    })
}

/// Processor time of the threads of this process.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = |thread: std::fs::DirEntry| -> Option<u64> {
        std::fs::read_to_string(thread.path().join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(nanos).sum())
}

/// A backend that responds when it is polled again.
#[derive(Clone)]
struct Yielding;

impl Service<Job> for Yielding {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = BoxFuture<'static, Result<KernelResponse, KernelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Job) -> Self::Future {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(KernelResponse::new(job.into_request()?.payload, Execution::new("bench")))
        })
    }
}

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
struct Number {
    number: f64,
}

/// Takes no time, and says that it takes long enough for a worker.
struct Instantaneous;

impl Kernel for Instantaneous {
    type Input = Number;
    type Output = Number;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/instantaneous", "1", "Returns its input.")
    }
    fn validate(&self, _: &Number) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// 30 µs at the 2e9 operations a second that the CPU backend counts on.
    fn cost(&self, _: &Number) -> Cost {
        Cost { operations: 60_000, ..Cost::default() }
    }
    fn batch_key(&self, _: &Number) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
    fn run_cpu(&self, input: &Number, _: &RunContext<'_>) -> Result<Number, KernelError> {
        Ok(input.clone())
    }
}
