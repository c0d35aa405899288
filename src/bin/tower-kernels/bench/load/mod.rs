//! Generates load with clients on several threads.

mod queue;
mod schedule;
mod statistics;
mod timer;

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::queue::{Queue, run_client};
use self::schedule::Schedule;
pub(super) use self::statistics::{Errors, Statistics, WINDOW};
use self::timer::Timer;
use super::args::Arrivals;
use super::machine;
use super::target::ClientFactory;
use crate::client::Failure;

/// How, and how many, requests are sent.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) threads: usize,
    pub(super) concurrency: usize,
    pub(super) model: LoadModel,
    pub(super) warmup: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) requests: Option<u64>,
    pub(super) timeout: Duration,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LoadModel {
    /// When the client has the response to the previous one.
    Closed,
    /// At a rate per second, independent of responses.
    Open { rate: f64, arrivals: Arrivals },
}

/// The results of a run.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) statistics: Statistics,
    /// From the end of the warm-up to the end of the run.
    pub(super) elapsed: Duration,
    /// Processor time of this process in that time; `None` if unknown.
    pub(super) cpu: Option<Duration>,
    /// Whether Ctrl-C ended it.
    pub(super) interrupted: bool,
}

/// Runs a plan: every thread connects, then all begin at once.
pub(super) fn run<C: ClientFactory>(
    runtime: &Runtime,
    target: &C,
    plan: &Plan,
    allow_errors: bool,
) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    // Without this, a run of nothing but failures would take its full time.
    if !allow_errors && let Err(failure) = runtime.block_on(initial_request(target, plan.timeout)) {
        let message = format!("the initial request failed, so nothing was measured: {failure}");
        return Err(failure.exit().failure(message).into());
    }
    let stop = CancellationToken::new();
    let remaining = plan.requests.map(|requests| Arc::new(AtomicU64::new(requests)));
    let (go, begun) = watch::channel(None);
    std::thread::scope(|scope| {
        // Stops the threads on every way out.
        let _stop = stop.clone().drop_guard();
        let (mut threads, mut connected, mut progress) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..plan.threads {
            let (connected_sender, connected_receiver) = oneshot::channel();
            let own = Arc::new(Progress::default());
            let share = Share { index, plan, remaining: remaining.clone(), progress: Arc::clone(&own) };
            let (begun, stop) = (begun.clone(), stop.clone());
            threads.push(scope.spawn(move || on_thread(target, share, connected_sender, begun, stop)));
            connected.push(connected_receiver);
            progress.push(own);
        }
        let (start, cpu, interrupted) = runtime.block_on(async {
            for connected in connected {
                connected.await.map_err(|_| "a thread ended before it connected")??;
            }
            let start = Instant::now();
            go.send_replace(Some(start));
            let ended = async {
                while threads.iter().any(|thread| !thread.is_finished()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            watch_run(plan, start, &progress, ended).await
        })?;
        stop.cancel();
        let mut statistics = Statistics::default();
        for thread in threads {
            match thread.join() {
                Ok(part) => statistics.add(&part?)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let elapsed = measured_time(plan, start + plan.warmup, statistics.last, interrupted);
        let cpu = match (cpu, machine::cpu_time()) {
            (Some(before), Some(after)) => Some(after.saturating_sub(before)),
            _ => None,
        };
        Ok(Measured { statistics, elapsed, cpu, interrupted })
    })
}

/// The length of the measurement that began at `begin` and had its last response at `last`.
fn measured_time(plan: &Plan, begin: Instant, last: Option<Instant>, interrupted: bool) -> Duration {
    let until_last = last.unwrap_or(begin).saturating_duration_since(begin);
    match (interrupted, plan.requests.is_some()) {
        (true, _) => Instant::now().saturating_duration_since(begin),
        // It may have ended by the number of requests, before its duration.
        (false, true) => until_last,
        (false, false) => plan.duration.unwrap_or_default().max(until_last),
    }
}

/// Sends one request, to find out whether requests can succeed.
async fn initial_request<C: ClientFactory>(target: &C, timeout: Duration) -> Result<(), Failure> {
    // hyper's connection runs as a local task.
    LocalSet::new()
        .run_until(async {
            for mut client in target.clients(1).await? {
                queue::call(&mut client, timeout).await?;
            }
            Ok(())
        })
        .await
}

/// Shows progress on a terminal. Returns the start of the run, the processor time at the end of the warm-up, and whether
/// Ctrl-C ended it.
async fn watch_run(
    plan: &Plan,
    start: Instant,
    progress: &[Arc<Progress>],
    ended: impl Future<Output = ()>,
) -> Result<(Instant, Option<Duration>, bool), Box<dyn Error + Send + Sync>> {
    let style = ProgressStyle::with_template("{elapsed_precise} {msg}")?;
    // Draws on stderr, if that is a terminal.
    let bar = ProgressBar::new_spinner().with_style(style);
    let begin = start + plan.warmup;
    let (mut cpu, mut before) = (None, (start, 0));
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let warm = tokio::time::sleep_until(begin);
    tokio::pin!(ended, warm);
    let interrupted = loop {
        tokio::select! {
            biased;
            signal = tokio::signal::ctrl_c() => { signal?; break true; }
            () = &mut ended => break false,
            () = &mut warm, if cpu.is_none() => cpu = Some(machine::cpu_time()),
            now = ticks.tick() => {
                let sum = |of: fn(&Progress) -> &AtomicU64| -> u64 {
                    progress.iter().map(|progress| of(progress).load(Ordering::Relaxed)).sum()
                };
                let (succeeded, failed) = (sum(|progress| &progress.succeeded), sum(|progress| &progress.failed));
                let seconds = now.saturating_duration_since(before.0).as_secs_f64();
                let rate = (succeeded - before.1) as f64 / seconds.max(0.001);
                let phase = if now < begin { "warming up" } else { "measuring" };
                bar.set_message(format!("{phase}: {rate:.0} requests/s, {failed} failed"));
                before = (now, succeeded);
            }
        }
    };
    bar.finish_and_clear();
    Ok((start, cpu.flatten(), interrupted))
}

/// The progress of a thread.
#[derive(Debug, Default)]
struct Progress {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// The share of one thread of the plan.
struct Share<'a> {
    index: usize,
    plan: &'a Plan,
    /// Requests that remain to be measured, by all threads together.
    remaining: Option<Arc<AtomicU64>>,
    progress: Arc<Progress>,
}

impl Share<'_> {
    /// Clients of this thread, distributed evenly.
    fn clients(&self) -> usize {
        (self.plan.concurrency + self.plan.threads - 1 - self.index) / self.plan.threads
    }

    fn queue(self, start: Instant) -> Queue {
        let Plan { threads, model, warmup, duration, timeout, .. } = *self.plan;
        let schedule = match model {
            LoadModel::Closed => None,
            LoadModel::Open { rate, arrivals } => Some(Schedule::new(arrivals, rate, self.index, threads)),
        };
        let begin = start + warmup;
        let end = duration.and_then(|duration| begin.checked_add(duration));
        Queue::new(schedule, start, begin, end, self.remaining, timeout, self.progress)
    }
}

/// Runs one thread: a runtime with its clients and statistics.
fn on_thread<C: ClientFactory>(
    target: &C,
    share: Share<'_>,
    connected: oneshot::Sender<Result<(), Failure>>,
    mut begun: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
) -> Result<Statistics, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let (clients, result) = match connect_clients(target, share.clients()).await {
            Ok(clients) => (clients, Ok(())),
            Err(failure) => (Vec::new(), Err(failure)),
        };
        // The receiver is dropped if another thread has failed.
        let _ = connected.send(result);
        let start = tokio::select! {
            start = begun.wait_for(Option::is_some) => *start?,
            () = stop.cancelled() => None,
        };
        let Some(start) = start else { return Ok(Statistics::default()) };
        let queue = Rc::new(share.queue(start));
        let mut tasks = JoinSet::new();
        for (client, timer) in clients {
            tasks.spawn_local(run_client(client, timer, Rc::clone(&queue)));
        }
        let finished = async {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        };
        tokio::select! {
            ended = finished => ended?,
            // Requests in flight are dropped and not counted.
            () = stop.cancelled() => {}
        }
        Ok(queue.take_statistics())
    }))
}

/// Connects clients, each with a timer.
async fn connect_clients<C: ClientFactory>(target: &C, count: usize) -> Result<Vec<(C::Client, Timer)>, Failure> {
    let clients = target.clients(count).await?;
    let timed = |client| Timer::new().map(|timer| (client, timer));
    let timed: std::io::Result<Vec<_>> = clients.into_iter().map(timed).collect();
    timed.map_err(|error| Failure::new("client", format!("cannot create a timer: {error}")))
}
