//! Calls by the clock, and what became of them.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::{Service, ServiceExt};
use tower_kernels::request::Priority;
use tower_kernels::service::{KernelRequest, KernelResponse, Payload};

use super::Scenario;
use super::device::{MILLI, exponential};
use crate::support::random::Random;

/// How many calls of a load that the lanes could just take.
pub(crate) const CALLS: u32 = 1200;

/// What became of the calls of one run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By priority, from the lowest on.
    sent: [u32; 3],
    in_time: [u32; 3],
    times: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, priority: Priority, answered: Option<Duration>) {
        self.sent[priority as usize] += 1;
        if let Some(time) = answered {
            self.in_time[priority as usize] += 1;
            self.times.push(time);
        }
    }

    /// Answers in time, over what the lanes could have answered.
    pub(crate) fn goodput(&self) -> f64 {
        f64::from(self.in_time.iter().sum::<u32>()) / f64::from(CALLS)
    }

    /// Of the calls of a priority, those that were answered in time.
    pub(crate) fn share(&self, priority: Priority) -> f64 {
        f64::from(self.in_time[priority as usize]) / f64::from(self.sent[priority as usize].max(1))
    }

    /// Of what was answered in time, in milliseconds.
    pub(crate) fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() / MILLI.as_secs_f64())
    }
}

/// Sends `load` times what the lanes can take, at random (Poisson) times, from clients that leave at their deadline. Of ten
/// calls one is of high priority and three of low.
pub(crate) async fn offer<S>(service: S, scenario: &Scenario, load: f64) -> Tally
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
{
    let mut random = Random::new((load * 100.0) as u64);
    let between = scenario.mean() / scenario.lanes as f64 / load;
    let mut calls = JoinSet::new();
    let mut due = Instant::now();
    for _ in 0..(f64::from(CALLS) * load) as u32 {
        due += MILLI.mul_f64(between * exponential(&mut random));
        sleep_until(due).await;
        let (operation, work) = *random.of(scenario.operations);
        let micros = (work.draw(&mut random) * 1e3) as u64;
        let mut request = KernelRequest::new(operation, Payload::json(micros.to_string()));
        request.priority = match random.below(10) {
            0 => Priority::High,
            1..=3 => Priority::Low,
            _ => Priority::Normal,
        };
        let until = due + MILLI.mul_f64(scenario.deadline);
        request.deadline = Some(until.into_std());
        let service = service.clone();
        calls.spawn(async move {
            let priority = request.priority;
            let answered = matches!(timeout_at(until, service.oneshot(request)).await, Ok(Ok(_)));
            (priority, answered.then(|| due.elapsed()))
        });
    }
    let mut tally = Tally::default();
    while let Some(call) = calls.join_next().await {
        let (priority, answered) = call.expect("a call neither panics nor is aborted");
        tally.add(priority, answered);
    }
    tally
}
