//! What is behind the layers: lanes that take their time, as long as a scenario says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::service_fn;
use tower_kernels::pipeline::KernelHandler;
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, Payload};

use super::random::Random;

/// A millisecond of the model. Tokio's timers tick in real ones, so the model is a hundred times as slow.
pub(crate) const MILLI: Duration = Duration::from_millis(100);

/// How long a call takes by itself, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Exponential(f64),
    /// Mostly the first, one time in ten the second.
    Bimodal(f64, f64),
    /// Each about as long as the others: within a fifth of this.
    Even(f64),
    /// As even, save one in fifty, which takes five times as long.
    Stalling(f64),
}

impl Work {
    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Exponential(mean) => exponential(random) * mean,
            Self::Bimodal(_, long) if random.one_in(10) => long,
            Self::Bimodal(short, _) => short,
            Self::Stalling(mean) if random.one_in(50) => 5.0 * mean,
            Self::Even(mean) | Self::Stalling(mean) => mean * (0.8 + 0.4 * uniform(random)),
        }
    }
}

/// From 0 to 1.
fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Of mean 1.
pub(crate) fn exponential(random: &mut Random) -> f64 {
    -(1.0 - uniform(random)).ln()
}

/// What disturbs the lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    /// Whether all takes twice as long for one in three of the times of 200 ms, as where others use the machine.
    pub(crate) slows_down: bool,
    /// How long an answer is on its way once it has left its lane, in milliseconds in the mean; five times as long while all
    /// is slow.
    pub(crate) on_its_way: f64,
}

/// So many lanes with one line before them, which take what they are given: a call's payload is its time in microseconds.
pub(crate) fn device(lanes: usize, noise: Noise) -> impl KernelHandler + Sync {
    let lanes = Arc::new(Semaphore::new(lanes));
    let begin = Instant::now();
    service_fn(move |request: KernelRequest| {
        let lanes = Arc::clone(&lanes);
        async move {
            let Payload::Json(told) = &request.payload else { panic!("no JSON") };
            let micros: u64 = serde_json::from_slice(told).expect("a number");
            let lane = lanes.acquire_owned().await;
            let begun = Instant::now();
            let time = (begun - begin).as_millis() as u64 / (200 * MILLI.as_millis() as u64);
            let slow = noise.slows_down && Random::new(time).one_in(3);
            tokio::time::sleep(MILLI.mul_f64(micros as f64 / 1e3) * if slow { 2 } else { 1 }).await;
            drop(lane);
            let mut execution = Execution::new("model");
            execution.executed = begun.elapsed();
            let way = noise.on_its_way * exponential(&mut Random::new(micros)) * if slow { 5.0 } else { 1.0 };
            let way = MILLI.mul_f64(way);
            if !way.is_zero() {
                tokio::time::sleep(way).await;
            }
            Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), execution))
        }
    })
}
