//! Full load on a pipeline with all that callers do: leave, set deadlines, send nonsense; and the books at the end.
//!
//! Every request has exactly one outcome, the pipeline's metrics count the same, answers are those of the CPU, and in the
//! end nothing is held: no slot, no memory, no thread. Whatever does not hold is a violation, and the report lists them.

pub(crate) mod kernels;
mod process;
mod random;
pub(crate) mod tally;
pub(crate) mod work;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::error::Classify;
use tower_kernels::middleware::metrics::MetricsHandle;
use tower_kernels::service::{KernelRequest, KernelResponse};

pub(crate) use process::Process;
pub(crate) use random::Random;
pub(crate) use tally::Tally;
pub(crate) use work::{Scale, Works};

/// What is soaked.
pub(crate) trait Pipeline: Service<KernelRequest, Response = KernelResponse> + Clone + Send + 'static {}

impl<S> Pipeline for S where S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + 'static {}

/// How it is soaked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    /// The same work and the same plans for it; when each is done is up to the machine.
    pub(crate) seed: u64,
    /// Requests at one time.
    pub(crate) tasks: usize,
    /// Whether one request, in the middle of it all, wants more memory than there is.
    pub(crate) greedy: bool,
    /// How long it may take from the last request to a pipeline that holds nothing.
    pub(crate) rest: Duration,
}

/// What must be zero once all has ended, by name.
pub(crate) type Gauges = Vec<(&'static str, u64)>;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    pub(crate) violations: Vec<String>,
    pub(crate) memory: (Process, Process),
}

/// When a caller leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Never,
    /// With the future not polled at all, or once.
    AfterPolls(u32),
    After(Duration),
}

fn leave(random: &mut Random) -> Leave {
    match random.below(100) {
        0..4 => Leave::AfterPolls(0),
        4..10 => Leave::AfterPolls(1),
        10..25 => Leave::After(Duration::from_micros(random.below(10_000))),
        _ => Leave::Never,
    }
}

/// The time that a caller has, from already past to plenty.
fn deadline(random: &mut Random, now: Instant) -> Option<Instant> {
    match random.below(100) {
        0..8 => now.checked_sub(Duration::from_millis(1)),
        8..20 => Some(now + Duration::from_micros(10 + random.below(5_000))),
        20..40 => Some(now + Duration::from_secs(20)),
        _ => None,
    }
}

/// Soaks `service`. `gauges` are what it and its backends hold; `memory` is free device memory, where there is a device.
pub(crate) async fn soak<S>(
    settings: &Settings,
    service: S,
    works: Arc<Works>,
    metrics: &MetricsHandle,
    gauges: impl Fn() -> Gauges,
    memory: impl Fn() -> Option<u64>,
) -> Report
where
    S: Pipeline<Error: Classify + std::fmt::Debug + Send, Future: Send>,
{
    let mut violations = Vec::new();
    // What is there from the first use on, such as code on the device and threads, is no leak.
    let warm_up = (settings.time / 10).min(Duration::from_secs(10));
    let warm = load(settings, &service, &works, warm_up, &mut violations).await;
    let held = at_rest(settings.rest, &gauges).await;
    violations.extend(held.into_iter().map(|held| format!("after the warm-up {held}")));
    let (before, free) = (Process::now(), memory());

    let watched = tokio::spawn(process::watch(settings.time));
    let greedy = settings.greedy.then(|| tokio::spawn(greedy(service.clone(), Arc::clone(&works), settings.time / 2)));
    let mut tally = load(settings, &service, &works, settings.time, &mut violations).await;
    if let Some(greedy) = greedy {
        tally.add(&greedy.await.expect("it does not panic"));
    }
    let sizes = watched.await.expect("it only reads");
    violations.extend(at_rest(settings.rest, &gauges).await);
    let after = Process::now();
    if after.threads > before.threads {
        violations.push(format!("{} threads at the start and {} at the end", before.threads, after.threads));
    }
    violations.extend(sizes.grown());
    if let (Some(start), Some(end)) = (free, memory()) {
        println!("free device memory: {start} bytes at the start, {end} at the end");
        if end < start {
            violations.push(format!("{} bytes of device memory were not given back", start - end));
        }
    }
    tally.add(&warm);
    violations.extend(tally.against(&metrics.ended()));
    violations.append(&mut tally.wrong);
    Report { tally, violations, memory: (sizes.first, sizes.last) }
}

/// All tasks at once, for `time`.
async fn load<S>(
    settings: &Settings,
    service: &S,
    works: &Arc<Works>,
    time: Duration,
    violations: &mut Vec<String>,
) -> Tally
where
    S: Pipeline<Error: Classify + std::fmt::Debug + Send, Future: Send>,
{
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..settings.tasks)
        .map(|task| {
            let random = Random::new(settings.seed.wrapping_add(task as u64));
            tokio::spawn(caller(service.clone(), Arc::clone(works), random, Arc::clone(&over)))
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    let last = tokio::time::Instant::now() + Duration::from_secs(60);
    for task in tasks {
        match tokio::time::timeout_at(last, task).await {
            Ok(Ok(of_task)) => tally.add(&of_task),
            Ok(Err(panic)) => violations.push(format!("a caller panicked: {panic}")),
            Err(_) => violations.push("a request has no outcome after a minute".to_owned()),
        }
    }
    tally
}

/// The one that wants too much.
async fn greedy<S>(mut service: S, works: Arc<Works>, after: Duration) -> Tally
where
    S: Pipeline<Error: Classify + std::fmt::Debug>,
{
    tokio::time::sleep(after).await;
    let (mut tally, mut random) = (Tally::default(), Random::new(0));
    let request = works.greedy.request(&mut random, &works);
    let start = Instant::now();
    let result = match service.ready().await {
        Ok(ready) => ready.call(request).await,
        Err(error) => Err(error),
    };
    let outcome = result.as_ref().map_or_else(|error| error.kind().code(), |_| "ok");
    tally.count(works.greedy.kernel, outcome, start.elapsed());
    if let Err(wrong) = works.greedy.check(result, &mut random, &mut tally) {
        tally.wrong(format!("{}: {wrong}", works.greedy.kernel));
    }
    tally
}

async fn caller<S>(mut service: S, works: Arc<Works>, mut random: Random, over: Arc<AtomicBool>) -> Tally
where
    S: Pipeline<Error: Classify + std::fmt::Debug, Future: Send>,
{
    let mut tally = Tally::default();
    while !over.load(Ordering::Relaxed) {
        // Where every answer is there at once nothing else would let the timers run.
        tokio::task::consume_budget().await;
        let work = works.choose(&mut random);
        let mut request = work.request(&mut random, &works);
        let leave = leave(&mut random);
        if random.below(64) == 0 {
            // Readiness is reserved by the one and given back by the other; no request is made of it.
            let mut other = service.clone();
            let _ = tokio::time::timeout(Duration::from_micros(random.below(100)), other.ready()).await;
        }
        if let Err(error) = service.ready().await {
            tally.wrong.push(format!("readiness failed: {error:?}"));
            return tally;
        }
        // After the wait, so that what is to be past or near is.
        request.deadline = deadline(&mut random, Instant::now());
        request.priority = random.priority();
        let timed = request.deadline.is_some();
        let start = Instant::now();
        let ended = until(service.call(request), leave).await;
        let time = start.elapsed();
        let outcome = match &ended {
            None => "cancelled",
            Some(Ok(_)) => "ok",
            Some(Err(error)) => error.kind().code(),
        };
        tally.count(work.kernel, outcome, time);
        let as_expected = match ended {
            None => Ok(()),
            Some(Err(_)) if timed && outcome == "deadline_exceeded" => Ok(()),
            Some(result) => work.check(result, &mut random, &mut tally),
        };
        if let Err(wrong) = as_expected {
            tally.wrong(format!("{}, {}: {wrong}", work.kernel, work.name));
        }
    }
    tally
}

/// The answer, or `None` where the caller has left before.
async fn until<F: Future>(future: F, leave: Leave) -> Option<F::Output> {
    match leave {
        Leave::Never => Some(future.await),
        Leave::After(time) => tokio::time::timeout(time, future).await.ok(),
        Leave::AfterPolls(0) => None,
        Leave::AfterPolls(polls) => {
            let (mut future, mut polled) = (pin!(future), 0);
            std::future::poll_fn(|cx| {
                polled += 1;
                match future.as_mut().poll(cx) {
                    std::task::Poll::Pending if polled < polls => std::task::Poll::Pending,
                    std::task::Poll::Pending => std::task::Poll::Ready(None),
                    ready => ready.map(Some),
                }
            })
            .await
        }
    }
}

/// Waits until the gauges are zero; says which are not, where that takes too long.
async fn at_rest(most: Duration, gauges: &impl Fn() -> Gauges) -> Vec<String> {
    let start = Instant::now();
    loop {
        let held: Vec<_> = gauges().into_iter().filter(|(_, value)| *value != 0).collect();
        if held.is_empty() {
            return Vec::new();
        }
        if start.elapsed() > most {
            return held.iter().map(|(name, value)| format!("{name} is {value} and not zero")).collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Report {
    /// Prints the report; whether all is well.
    pub(crate) fn print(&self, time: Duration) -> bool {
        self.tally.print(time);
        let (first, last) = &self.memory;
        println!(
            "resident: {} MiB at first, {} MiB at last; {} threads",
            first.resident >> 20,
            last.resident >> 20,
            last.threads
        );
        for violation in &self.violations {
            println!("VIOLATION: {violation}");
        }
        println!("{}", if self.violations.is_empty() { "all holds" } else { "it does NOT hold" });
        self.violations.is_empty()
    }
}
