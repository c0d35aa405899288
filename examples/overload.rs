//! What the ready pipeline makes of twice the load that a device can take, in ten seconds.
//!
//! `cargo run --release --example overload`
//!
//! Clients come by the clock, whether or not the ones before them have been answered, and leave after 100 ms: an answer
//! that takes longer counts for nothing. The device does eight things at a time, each in 10 ms, and puts whatever else it
//! is given into a queue of its own.

use std::error::Error;
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_kernels::pipeline::{KernelHandler, PipelineConfig, PipelineLayer};
use tower_kernels::request::{Execution, Priority};
use tower_kernels::service::{KernelError, KernelRegistry, KernelRequest, KernelResponse, Payload};

const PLACES: usize = 8;
const WORK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_millis(100);
const LOAD: f64 = 2.0;
const LASTS: Duration = Duration::from_secs(3);

/// How much it matters, and by when it is wanted.
fn request(priority: Priority, deadline: Option<Instant>) -> KernelRequest {
    let mut request = KernelRequest::new("demo/device", Payload::json("{}"));
    (request.priority, request.deadline) = (priority, deadline);
    request
}

/// A device that takes all that it is given.
fn device() -> impl KernelHandler + Sync {
    let places = Arc::new(Semaphore::new(PLACES));
    service_fn(move |_: KernelRequest| {
        let places = Arc::clone(&places);
        async move {
            let _place = places.acquire_owned().await;
            let begin = Instant::now();
            tokio::time::sleep(WORK).await;
            let mut execution = Execution::new("device");
            execution.executed = begin.elapsed();
            Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), execution))
        }
    })
}

/// The requests a second that twice as many callers as it has places get answered.
async fn capacity<S>(service: S) -> f64
where
    S: Service<KernelRequest, Error: Debug, Future: Send> + Clone + Send + 'static,
{
    const LASTS: Duration = Duration::from_secs(1);
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..2 * PLACES {
        let service = service.clone();
        callers.spawn(async move {
            let mut answered = 0;
            while begin.elapsed() < LASTS {
                answered += u32::from(service.clone().oneshot(request(Priority::Normal, None)).await.is_ok());
            }
            answered
        });
    }
    let answered: u32 = callers.join_all().await.into_iter().sum();
    f64::from(answered) / begin.elapsed().as_secs_f64()
}

/// What became of one request: its priority, and how long its answer took where there was one in time.
type Outcome = (Priority, Option<Duration>);

/// Sends by the clock, for as long as `LASTS`.
async fn offer<S>(service: S, capacity: f64) -> Vec<Outcome>
where
    S: Service<KernelRequest, Response: Send, Error: Debug + Send, Future: Send> + Clone + Send + 'static,
{
    let every = Duration::from_secs_f64(1.0 / (LOAD * capacity));
    let begin = tokio::time::Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..(LASTS.as_secs_f64() / every.as_secs_f64()) as u32 {
        let due = begin + every * number;
        sleep_until(due).await;
        // One in ten matters the most, three the least.
        let priority = match number % 10 {
            0 => Priority::High,
            1..=3 => Priority::Low,
            _ => Priority::Normal,
        };
        let service = service.clone();
        calls.spawn(async move {
            // Counted from when it was due to be sent, as that is when its user began to wait.
            let request = request(priority, Some((due + PATIENCE).into_std()));
            let answered = tokio::time::timeout_at(due + PATIENCE, service.oneshot(request)).await;
            (priority, matches!(answered, Ok(Ok(_))).then(|| due.elapsed()))
        });
    }
    calls.join_all().await
}

/// Like [`offer`], of clients that do not leave: the device has no way to know that nobody waits any more.
async fn offer_without_cancelling<S>(service: S, capacity: f64) -> Vec<Outcome>
where
    S: Service<KernelRequest, Response: Send, Error: Debug + Send, Future: Send> + Clone + Send + 'static,
{
    let detached = service_fn(move |request| {
        let call = tokio::spawn(service.clone().oneshot(request));
        async move { call.await.map_err(|_| ())?.map_err(|_| ()).map(drop) }
    });
    offer(detached, capacity).await
}

fn row(name: &str, outcomes: &[Outcome], capacity: f64) {
    let mut times: Vec<Duration> = outcomes.iter().filter_map(|(_, answered)| *answered).collect();
    times.sort();
    let at = |share: f64| match times.get((times.len() as f64 * share) as usize) {
        Some(time) => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    let answered = |priority| {
        let of = outcomes.iter().filter(|(its, _)| *its == priority);
        let good = of.clone().filter(|(_, answered)| answered.is_some()).count();
        format!("{:.0} %", 100.0 * good as f64 / of.count() as f64)
    };
    let good = times.len() as f64 / LASTS.as_secs_f64() / capacity;
    let bar = "#".repeat((good * 20.0).round() as usize);
    let [high, normal, low] = [Priority::High, Priority::Normal, Priority::Low].map(answered);
    let (p50, p99) = (at(0.5), at(0.99));
    println!(
        "| {name:<14} | {:>3.0} % {bar:<20} | {p50:>6} | {p99:>6} | {high:>5} | {normal:>6} | {low:>5} |",
        good * 100.0
    );
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let capacity = capacity(device()).await;
    println!("A device that can answer {capacity:.0} requests a second is sent {LOAD} times that.");
    println!("An answer counts if it is there within {PATIENCE:?}. Each row takes {LASTS:?}.\n");
    println!("|                | answered in time, of what  | of those        | in time, by priority    |");
    println!("| layers         | the device can answer      |    p50 |    p99 |  high | normal |   low |");
    println!("|----------------|----------------------------|--------|--------|-------|--------|-------|");
    let row = |name: &str, outcomes: &[Outcome]| row(name, outcomes, capacity);

    row("none", &offer_without_cancelling(device(), capacity).await);

    let towers = ServiceBuilder::new().load_shed().concurrency_limit(PLACES).timeout(PATIENCE).service(device());
    row("tower's own", &offer(towers, capacity).await);

    // All that it is told is what tower's layers are: the time, and how many at a time. How long calls take it learns.
    let config = PipelineConfig { timeout: PATIENCE, concurrency: NonZeroUsize::new(PLACES), ..Default::default() };
    let ours = PipelineLayer::new(KernelRegistry::new(), config)?.layer(device());
    row("tower-kernels", &offer(ours, capacity).await);
    Ok(())
}
