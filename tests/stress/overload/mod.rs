//! What the ready pipeline makes of more than can be done, in a model without noise of its own: time is paused, so that
//! nothing takes any but what a scenario says. Goodput is what is answered in time, over what the lanes could do.
//!
//! `cargo test --test stress overload -- --nocapture` prints the tables. The same on a real machine is `benches/goodput`.

mod device;
mod load;

use std::fmt::Write;
use std::num::NonZeroUsize;

use tower::{Layer, Service, ServiceBuilder};
use tower_kernels::pipeline::{LoadShedConfig, PipelineConfig, PipelineLayer};
use tower_kernels::request::Priority;
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelResponse};

use self::device::{MILLI, Noise, Work, device};
use self::load::{Tally, offer};
use crate::support::random::Random;

/// What is offered, and to what.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    /// Each is as frequent as the others.
    operations: &'static [(&'static str, Work)],
    lanes: usize,
    /// In milliseconds.
    deadline: f64,
    noise: Noise,
}

/// Calls that the layers let in at a time.
const AT_A_TIME: usize = 4;

const EXPONENTIAL: Scenario = Scenario {
    name: "exponential, 6 of 50 ms",
    operations: &[("any", Work::Exponential(6.0))],
    lanes: 4,
    deadline: 50.0,
    noise: Noise { slows_down: false, on_its_way: 0.0 },
};

impl Scenario {
    /// What a call takes, in milliseconds.
    fn mean(&self) -> f64 {
        let mut random = Random::new(0);
        let times = 100_000 * self.operations.len();
        let all: f64 = (0..times).map(|n| self.operations[n % self.operations.len()].1.draw(&mut random)).sum();
        // Of three times as long as each other, one does half as much.
        all / times as f64 * if self.noise.slows_down { 1.2 } else { 1.0 }
    }

    /// With each kind of layers, by load.
    fn run(&self) -> Table {
        let deadline = MILLI.mul_f64(self.deadline);
        let device = || device(self.lanes, self.noise);
        let towers = || {
            let layers = ServiceBuilder::new().load_shed().concurrency_limit(AT_A_TIME).timeout(deadline);
            layers.service(device())
        };
        let pipeline = || {
            let config = PipelineConfig {
                timeout: deadline,
                load_shed: Some(LoadShedConfig { max_wait: MILLI * 5000 }),
                concurrency: NonZeroUsize::new(AT_A_TIME),
                ..Default::default()
            };
            PipelineLayer::new(KernelRegistry::new(), config).unwrap().layer(device())
        };
        Table { none: self.by_load(device), towers: self.by_load(towers), pipeline: self.by_load(pipeline) }
    }

    fn by_load<S>(&self, make: impl Fn() -> S) -> [Tally; 5]
    where
        S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
    {
        LOADS.map(|load| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async { offer(make(), self, load).await })
        })
    }
}

const LOADS: [f64; 5] = [0.5, 0.9, 1.2, 2.0, 4.0];

/// By load.
struct Table {
    none: [Tally; 5],
    towers: [Tally; 5],
    pipeline: [Tally; 5],
}

impl Table {
    fn markdown(&self, name: &str) -> String {
        let mut text = format!("{name}\n\n| load | layers | goodput | high | normal | low | p50 ms |\n");
        text.push_str("|---:|---|---:|---:|---:|---:|---:|\n");
        for (index, load) in LOADS.into_iter().enumerate() {
            for (layers, row) in [("none", &self.none), ("tower's own", &self.towers), ("pipeline", &self.pipeline)] {
                let (goodput, median) = (row[index].goodput(), row[index].median());
                let [low, normal, high] =
                    [Priority::Low, Priority::Normal, Priority::High].map(|p| row[index].share(p));
                let shares = format!("{high:.3} | {normal:.3} | {low:.3}");
                writeln!(text, "| {load} | {layers} | {goodput:.3} | {shares} | {median:.1} |").unwrap();
            }
        }
        text
    }
}

/// By how much of the capacity the pipeline may be below tower's own: what some thousand random calls leave open.
const TOLERANCE: f64 = 0.02;

/// Whether `scenario` goes as it is to.
fn holds(scenario: Scenario) {
    let table = scenario.run();
    let text = table.markdown(scenario.name);
    println!("{text}");
    let mut peak = 0.0_f64;
    for (index, load) in LOADS.into_iter().enumerate() {
        let [ours, towers] = [&table.pipeline, &table.towers].map(|row| row[index].goodput());
        assert!(ours >= towers - TOLERANCE, "{ours:.3} against tower's {towers:.3} at {load}: {text}");
        peak = peak.max(ours);
        assert!(ours >= 0.9 * peak, "{ours:.3} at {load}, after a peak of {peak:.3}: {text}");
        let [low, normal, high] =
            [Priority::Low, Priority::Normal, Priority::High].map(|p| table.pipeline[index].share(p));
        // At four times the capacity there is nearly half of it in calls of high priority alone.
        assert!(high >= if load > 2.0 { 0.95 } else { 0.97 }, "{high:.3} of high priority at {load}: {text}");
        assert!(normal >= low - TOLERANCE, "{normal:.3} of normal priority and {low:.3} of low at {load}: {text}");
    }
    // What the others leave, low priority gets: there is room for nearly half of it.
    let low = table.pipeline[2].share(Priority::Low);
    assert!(low > 0.4, "{low:.3} of low priority at {}: {text}", LOADS[2]);
}

#[test]
fn calls_whose_times_are_random() {
    holds(EXPONENTIAL);
}

#[test]
fn calls_that_have_ten_times_as_much_time() {
    holds(Scenario { name: "exponential, 6 of 500 ms", deadline: 500.0, ..EXPONENTIAL });
}

#[test]
fn calls_that_have_hardly_more_time_than_they_take() {
    let operations = &[("any", Work::Even(6.0))];
    holds(Scenario { name: "even, 6 of 15 ms", operations, deadline: 15.0, ..EXPONENTIAL });
}

#[test]
fn calls_of_which_some_take_ten_times_as_long() {
    let operations = &[("any", Work::Bimodal(3.0, 30.0))];
    holds(Scenario { name: "one in ten 30 ms, the others 3, of 50 ms", operations, ..EXPONENTIAL });
}

#[test]
fn operations_of_which_one_takes_ten_times_as_long() {
    let operations = &[("short", Work::Even(2.0)), ("long", Work::Even(20.0))];
    holds(Scenario { name: "2 ms and 20 ms, of 50 ms", operations, ..EXPONENTIAL });
}

#[test]
fn two_lanes_with_a_line_of_their_own_on_a_machine_that_others_use() {
    let scenario = Scenario {
        name: "stalling, 3.5 of 50 ms, two lanes, disturbed",
        operations: &[("any", Work::Stalling(3.2))],
        lanes: 2,
        noise: Noise { slows_down: true, on_its_way: 1.5 },
        ..EXPONENTIAL
    };
    holds(scenario);
}
