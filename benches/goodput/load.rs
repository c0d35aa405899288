//! Clients: in a closed loop, to find the capacity, and by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tower::{Service, ServiceExt};
use tower_kernels::request::Priority;
use tower_kernels::service::{KernelRequest, KernelResponse};

use crate::{DEADLINE, Failure, LASTS};

/// What clients do when the answer is late.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clients {
    /// They wait on, as behind a proxy that does not tell.
    Stay,
    /// They close the connection, and the server drops the future.
    Leave,
}

/// The requests a second that `callers` get answered, each of whom sends its next when it has its answer.
pub(crate) async fn closed_loop<S>(service: S, request: &KernelRequest, callers: usize, lasts: Duration) -> f64
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
{
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (service, request, answered) = (service.clone(), request.clone(), Arc::clone(&answered));
        tasks.spawn(async move {
            while service.clone().oneshot(request.clone()).await.is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // The first quarter warms up.
    tokio::time::sleep(lasts / 4).await;
    let (from, begin) = (answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(lasts).await;
    let (to, took) = (answered.load(Ordering::Relaxed), begin.elapsed());
    tasks.shutdown().await;
    (to - from) as f64 / took.as_secs_f64()
}

/// Sends `rate` requests a second at random times.
pub(crate) fn open_loop<S>(
    runtime: &Runtime,
    service: S,
    request: &KernelRequest,
    clients: Clients,
    rate: f64,
    seed: u64,
) -> Result<Tally, Failure>
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
{
    let mut random = Random::new(seed);
    let mut calls = Vec::new();
    let begin = Instant::now() + Duration::from_millis(10);
    let mut due = begin;
    // On this thread, which is none of the runtime's: tokio's timers tick once a millisecond.
    while due < begin + LASTS {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut request = request.clone();
        // One in ten matters the most, three the least.
        request.priority = match random.below(10) {
            0 => Priority::High,
            1..=3 => Priority::Low,
            _ => Priority::Normal,
        };
        calls.push(runtime.spawn(send(service.clone(), request, clients, due)));
        due += Duration::from_secs_f64(random.exponential() / rate);
    }
    let mut tally = Tally::default();
    for call in calls {
        let (priority, answered) = runtime.block_on(call)?;
        tally.add(priority, answered);
    }
    Ok(tally)
}

async fn send<S>(service: S, mut request: KernelRequest, clients: Clients, due: Instant) -> (Priority, Option<Duration>)
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
{
    let priority = request.priority;
    let until = due + DEADLINE;
    let in_time = |answered: bool| {
        let took = due.elapsed();
        (answered && took <= DEADLINE).then_some(took)
    };
    let answered = match clients {
        Clients::Stay => {
            // To its end, so that none of it is left for who is measured next.
            in_time(service.oneshot(request).await.is_ok())
        }
        Clients::Leave => {
            request.deadline = Some(until);
            in_time(matches!(timeout_at(until.into(), service.oneshot(request)).await, Ok(Ok(_))))
        }
    };
    (priority, answered)
}

/// What became of the requests of one run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of those that were answered in time, in seconds.
    times: Vec<f64>,
    /// By priority, from the lowest on: how many were sent, and answered in time.
    sent: [u64; 3],
    answered: [u64; 3],
}

impl Tally {
    fn add(&mut self, priority: Priority, answered: Option<Duration>) {
        self.sent[priority as usize] += 1;
        if let Some(time) = answered {
            self.answered[priority as usize] += 1;
            self.times.push(time.as_secs_f64());
        }
    }

    pub(crate) fn good(&self) -> usize {
        self.times.len()
    }

    /// Of the times of those that were answered in time.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times.get((times.len() as f64 * share) as usize).copied()
    }

    /// How many of each priority were answered in time, from the lowest on.
    pub(crate) fn shares(&self) -> [f64; 3] {
        std::array::from_fn(|priority| self.answered[priority] as f64 / self.sent[priority].max(1) as f64)
    }
}

/// A xorshift generator: the same numbers in each run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 20) % bound
    }

    /// Of mean 1.
    fn exponential(&mut self) -> f64 {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}
