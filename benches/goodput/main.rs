//! Goodput by offered load: how many answers are there in time, with our layers, with tower's, and with none.
//!
//! `cargo bench --bench goodput [-- SVG_FILE]`, some 90 s. Have nothing else on the machine.
//!
//! The load is an open loop: requests are sent when they are due, at random (Poisson) times of a fixed rate, whether or not
//! the ones before them have been answered, and their latency counts from then. The kernel is a real one, betweenness of
//! a small graph on the CPU; the capacity that the loads are multiples of is measured first, in a closed loop.

mod chart;
mod load;

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceBuilder};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::pipeline::{PipelineConfig, PipelineLayer};
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

use load::{Clients, Tally};

type Failure = Box<dyn Error + Send + Sync>;

const LOADS: [f64; 4] = [0.5, 0.9, 1.2, 2.0];
const LASTS: Duration = Duration::from_secs(4);
/// After which an answer counts for nothing.
const DEADLINE: Duration = Duration::from_millis(50);

fn main() -> Result<(), Failure> {
    let svg = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let runtime = Runtime::new()?;
    let lanes = std::thread::available_parallelism()?.get();
    let (registry, kernels, request) = kernels()?;
    let capacity = runtime.block_on(load::closed_loop(kernels.clone(), &request, 4 * lanes, LASTS));
    println!(
        "capacity: {capacity:.0} requests a second, {lanes} processors, deadline {DEADLINE:?}, {LASTS:?} a cell\n"
    );

    // Enough to keep the lanes busy, for either kind of layers.
    let at_a_time = 2 * lanes;
    let towers = ServiceBuilder::new().load_shed().concurrency_limit(at_a_time).timeout(DEADLINE);
    let mut config = PipelineConfig::default();
    config.timeout = DEADLINE;
    config.concurrency = NonZeroUsize::new(at_a_time);
    let ours = PipelineLayer::new(Arc::clone(&registry), config)?;
    println!("{ours}\n");

    let mut table = Table { capacity, rows: Vec::new() };
    for load in LOADS {
        let run = Run { runtime: &runtime, request: &request, load, rate: load * capacity };
        table.add("none, callers stay", load, run.of(kernels.clone(), Clients::Stay)?);
        table.add("none, callers leave", load, run.of(kernels.clone(), Clients::Leave)?);
        table.add("tower's own", load, run.of(towers.clone().service(kernels.clone()), Clients::Leave)?);
        table.add("tower-kernels", load, run.of(ours.layer(kernels.clone()), Clients::Leave)?);
    }
    println!("{table}");
    let peak = |name: &str| table.of(name).map(|(_, goodput)| goodput).fold(0.0, f64::max);
    if let Some((_, at_twice)) = table.of("tower-kernels").last() {
        println!(
            "tower-kernels keeps {:.2} of its peak goodput at twice the capacity",
            at_twice / peak("tower-kernels")
        );
    }
    if let Some(file) = svg {
        std::fs::write(&file, chart::svg(&table.series()))?;
        println!("the picture is in {file}");
    }
    Ok(())
}

/// The kernels on the CPU, and a request that takes one of them a millisecond or two.
fn kernels() -> Result<(Arc<KernelRegistry>, KernelService<CpuBackend>, KernelRequest), Failure> {
    const KERNEL: &str = "graph/betweenness-centrality";
    const NODES: u64 = 400;
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry)?;
    let mut random = load::Random::new(7);
    let edges: Vec<[u64; 2]> = (0..5 * NODES).map(|_| [random.below(NODES), random.below(NODES)]).collect();
    let edges = edges.into_iter().filter(|[from, to]| from != to).collect::<Vec<_>>();
    let input = serde_json::json!({"num_nodes": NODES, "edges": edges}).to_string();
    // Decoded once: what is measured is the kernel and the layers, and not JSON.
    let input = registry.get(KERNEL).ok_or("no such kernel")?.decode(Payload::json(input))?;
    let registry = Arc::new(registry);
    let kernels = KernelService::with_backend(Arc::clone(&registry), CpuBackend::new());
    Ok((registry, kernels, KernelRequest::new(KERNEL, input)))
}

/// One column of the table.
struct Run<'a> {
    runtime: &'a Runtime,
    request: &'a KernelRequest,
    load: f64,
    rate: f64,
}

impl Run<'_> {
    fn of<S>(&self, service: S, clients: Clients) -> Result<Tally, Failure>
    where
        S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
    {
        // The same times for all that are compared.
        let seed = (self.load * 100.0) as u64;
        let tally = load::open_loop(self.runtime, service, self.request, clients, self.rate, seed)?;
        // What is left of it in queues is not the next one's.
        std::thread::sleep(DEADLINE * 4);
        Ok(tally)
    }
}

/// What was measured, by layers and load.
struct Table {
    capacity: f64,
    rows: Vec<(&'static str, f64, Tally)>,
}

impl Table {
    fn add(&mut self, name: &'static str, load: f64, tally: Tally) {
        self.rows.push((name, load, tally));
    }

    /// Load and goodput, over capacity.
    fn of(&self, name: &str) -> impl Iterator<Item = (f64, f64)> {
        let rows = self.rows.iter().filter(move |row| row.0 == name);
        rows.map(|(_, load, tally)| (*load, tally.good() as f64 / LASTS.as_secs_f64() / self.capacity))
    }

    fn series(&self) -> Vec<(&'static str, Vec<(f64, f64)>)> {
        let mut names: Vec<&'static str> = self.rows.iter().map(|row| row.0).collect();
        names.dedup();
        names.truncate(self.rows.len() / LOADS.len());
        names.into_iter().map(|name| (name, self.of(name).collect())).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| load | layers | goodput / capacity | p50 ms | p99 ms | high | normal | low |")?;
        writeln!(f, "|---:|---|---:|---:|---:|---:|---:|---:|")?;
        for (name, load, tally) in &self.rows {
            let goodput = tally.good() as f64 / LASTS.as_secs_f64() / self.capacity;
            let ms = |share| tally.quantile(share).map_or("-".to_owned(), |time| format!("{:.1}", time * 1e3));
            let [low, normal, high] = tally.shares().map(|share| format!("{:.0}%", share * 100.0));
            writeln!(f, "| {load} | {name} | {goodput:.2} | {} | {} | {high} | {normal} | {low} |", ms(0.5), ms(0.99))?;
        }
        Ok(())
    }
}
