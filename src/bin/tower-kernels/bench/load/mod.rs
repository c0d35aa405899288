//! Load: callers on threads of their own, and what they saw.

mod line;
mod schedule;
mod tally;
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

use self::line::{Line, work};
use self::schedule::Schedule;
pub(super) use self::tally::{Errors, Tally, WINDOW};
use self::timer::Timer;
use super::args::Arrivals;
use super::machine;
use super::target::{Callers, Failure};

/// How requests are sent, and how many.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) threads: usize,
    pub(super) concurrency: usize,
    pub(super) pace: Pace,
    pub(super) warmup: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) requests: Option<u64>,
    pub(super) timeout: Duration,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// When the caller has the answer to the one before.
    Closed,
    /// By the clock, so many a second.
    Open { rate: f64, arrivals: Arrivals },
}

/// What a run has shown.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// From the end of the warm-up to the end of the run.
    pub(super) elapsed: Duration,
    /// Of this process, in that time; `None` where the system does not say.
    pub(super) cpu: Option<Duration>,
    /// Whether Ctrl-C ended it.
    pub(super) interrupted: bool,
}

/// Runs a plan: every thread connects, then all begin at once.
pub(super) fn run<C: Callers>(
    runtime: &Runtime,
    target: &C,
    plan: &Plan,
    allow_errors: bool,
) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    // Ten seconds of the same refusal say no more than one does.
    if !allow_errors && let Err(failure) = runtime.block_on(first(target, plan.timeout)) {
        let message = format!("the first request failed, so nothing was measured: {failure}");
        return Err(failure.exit().because(message).into());
    }
    let stop = CancellationToken::new();
    let left = plan.requests.map(|requests| Arc::new(AtomicU64::new(requests)));
    let (go, begun) = watch::channel(None);
    std::thread::scope(|scope| {
        // Whichever way this ends, the threads do.
        let _stop = stop.clone().drop_guard();
        let (mut threads, mut connected, mut progress) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..plan.threads {
            let (says, hears) = oneshot::channel();
            let seen = Arc::new(Seen::default());
            let share = Share { index, plan, left: left.clone(), seen: Arc::clone(&seen) };
            let (begun, stop) = (begun.clone(), stop.clone());
            threads.push(scope.spawn(move || on_thread(target, share, says, begun, stop)));
            connected.push(hears);
            progress.push(seen);
        }
        let (start, cpu, interrupted) = runtime.block_on(async {
            for connected in connected {
                connected.await.map_err(|_| "a thread ended before it had connected")??;
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
        let mut tally = Tally::default();
        for thread in threads {
            match thread.join() {
                Ok(part) => tally.add(&part?)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let begin = start + plan.warmup;
        let elapsed = match (interrupted, plan.requests.is_some()) {
            (true, _) => Instant::now().saturating_duration_since(begin),
            // It may have ended by the number of requests, long before its time.
            (false, true) => tally.last.unwrap_or(begin).saturating_duration_since(begin),
            (false, false) => {
                plan.duration.unwrap_or_default().max(tally.last.unwrap_or(begin).saturating_duration_since(begin))
            }
        };
        let cpu = match (cpu, machine::cpu_time()) {
            (Some(before), Some(after)) => Some(after.saturating_sub(before)),
            _ => None,
        };
        Ok(Measured { tally, elapsed, cpu, interrupted })
    })
}

async fn first<C: Callers>(target: &C, timeout: Duration) -> Result<(), Failure> {
    // hyper's connection runs beside the caller.
    LocalSet::new()
        .run_until(async {
            for mut caller in target.callers(1).await? {
                line::call(&mut caller, timeout).await?;
            }
            Ok(())
        })
        .await
}

/// Shows how far it is, on a terminal; answers when the run began, the processor time at the end of the warm-up, and
/// whether Ctrl-C ended it.
async fn watch_run(
    plan: &Plan,
    start: Instant,
    progress: &[Arc<Seen>],
    ended: impl Future<Output = ()>,
) -> Result<(Instant, Option<Duration>, bool), Box<dyn Error + Send + Sync>> {
    let style = ProgressStyle::with_template("{elapsed_precise} {msg}")?;
    // It draws on standard error, and only where that is a terminal.
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
                let sum = |of: fn(&Seen) -> &AtomicU64| -> u64 {
                    progress.iter().map(|seen| of(seen).load(Ordering::Relaxed)).sum()
                };
                let (answered, failed) = (sum(|seen| &seen.answered), sum(|seen| &seen.failed));
                let seconds = now.saturating_duration_since(before.0).as_secs_f64();
                let rate = (answered - before.1) as f64 / seconds.max(0.001);
                let phase = if now < begin { "warming up" } else { "measuring" };
                bar.set_message(format!("{phase}: {rate:.0} requests a second, {failed} failed"));
                before = (now, answered);
            }
        }
    };
    bar.finish_and_clear();
    Ok((start, cpu.flatten(), interrupted))
}

/// What a thread has seen so far, for the line that shows progress.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// A thread's part of the plan.
struct Share<'a> {
    index: usize,
    plan: &'a Plan,
    /// Requests that remain to be measured, by all threads together.
    left: Option<Arc<AtomicU64>>,
    seen: Arc<Seen>,
}

impl Share<'_> {
    /// Callers are dealt out like cards.
    fn callers(&self) -> usize {
        (self.plan.concurrency + self.plan.threads - 1 - self.index) / self.plan.threads
    }

    fn line(self, start: Instant) -> Line {
        let Plan { threads, pace, warmup, duration, timeout, .. } = *self.plan;
        let schedule = match pace {
            Pace::Closed => None,
            Pace::Open { rate, arrivals } => Some(Schedule::new(arrivals, rate, self.index, threads)),
        };
        let begin = start + warmup;
        let end = duration.and_then(|duration| begin.checked_add(duration));
        Line::new(schedule, start, begin, end, self.left, timeout, self.seen)
    }
}

/// One thread: a runtime, its callers, its counters.
fn on_thread<C: Callers>(
    target: &C,
    share: Share<'_>,
    connected: oneshot::Sender<Result<(), Failure>>,
    mut begun: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
) -> Result<Tally, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let (callers, result) = match ready(target, share.callers()).await {
            Ok(callers) => (callers, Ok(())),
            Err(failure) => (Vec::new(), Err(failure)),
        };
        // Where nobody hears it, another thread has failed before and all is over.
        let _ = connected.send(result);
        let start = tokio::select! {
            start = begun.wait_for(Option::is_some) => *start?,
            () = stop.cancelled() => None,
        };
        let Some(start) = start else { return Ok(Tally::default()) };
        let line = Rc::new(share.line(start));
        let mut tasks = JoinSet::new();
        for (caller, timer) in callers {
            tasks.spawn_local(work(caller, timer, Rc::clone(&line)));
        }
        let finished = async {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        };
        tokio::select! {
            ended = finished => ended?,
            // What is on its way is given up, and not counted.
            () = stop.cancelled() => {}
        }
        Ok(line.close())
    }))
}

/// Callers that have connected, each with a timer.
async fn ready<C: Callers>(target: &C, count: usize) -> Result<Vec<(C::Caller, Timer)>, Failure> {
    let callers = target.callers(count).await?;
    let timed = |caller| Timer::new().map(|timer| (caller, timer));
    let timed: std::io::Result<Vec<_>> = callers.into_iter().map(timed).collect();
    timed.map_err(|error| Failure::new("client", format!("no timer: {error}")))
}
