//! Goodput by offered load: how many answers are there in time, with our layers, with tower's, and with none.
//!
//! `cargo bench --bench goodput [-- SVG_FILE]`, some 200 s. Have nothing else on the machine.
//!
//! The load is an open loop: requests are sent when they are due, at random (Poisson) times of a fixed rate, whether or not
//! the ones before them have been answered, and their latency counts from then. The kernel is a real one, betweenness of
//! a small graph on the CPU. The capacity that a load is a multiple of is measured just before it, in a closed loop, as
//! machines do not keep their speed; all of it is done in several rounds, of which the table has medians.

mod chart;
mod load;
mod table;

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceBuilder};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::pipeline::{PipelineConfig, PipelineLayer};
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

use load::{Clients, Tally};
use table::Table;

type Failure = Box<dyn Error + Send + Sync>;

const LOADS: [f64; 4] = [0.5, 0.9, 1.2, 2.0];
const LASTS: Duration = Duration::from_millis(1800);
const ROUNDS: usize = 5;
/// After which an answer counts for nothing.
const DEADLINE: Duration = Duration::from_millis(50);

fn main() -> Result<(), Failure> {
    let svg = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let runtime = Runtime::new()?;
    let lanes = std::thread::available_parallelism()?.get();
    let (registry, kernels, request) = kernels()?;
    // Enough to keep the lanes busy, for either kind of layers.
    let at_a_time = 2 * lanes;
    let towers = ServiceBuilder::new().load_shed().concurrency_limit(at_a_time).timeout(DEADLINE);
    let concurrency = NonZeroUsize::new(at_a_time);
    let config = PipelineConfig { timeout: DEADLINE, concurrency, ..Default::default() };
    let ours = PipelineLayer::new(Arc::clone(&registry), config)?;
    println!("{ours}\n");

    println!("{lanes} processors, deadline {DEADLINE:?}, {ROUNDS} rounds of {LASTS:?} a cell");
    let mut table = Table::default();
    // Whose turn is first has no advantage.
    let mut order = [0, 1, 2, 3];
    for round in 0..ROUNDS {
        for load in LOADS {
            let capacity = runtime.block_on(load::closed_loop(kernels.clone(), &request, 4 * lanes, LASTS / 2));
            println!("round {}, load {load}: capacity {capacity:.0} requests a second", round + 1);
            let run = Run { runtime: &runtime, request: &request, load, round, rate: load * capacity };
            for which in order {
                let kernels = kernels.clone();
                let (name, tally) = match which {
                    0 => ("none, callers stay", run.of(kernels, Clients::Stay)?),
                    1 => ("none, callers leave", run.of(kernels, Clients::Leave)?),
                    2 => (TOWERS, run.of(towers.clone().service(kernels), Clients::Leave)?),
                    _ => (OURS, run.of(ours.layer(kernels), Clients::Leave)?),
                };
                table.add(load, name, capacity, tally);
            }
            order.rotate_left(1);
        }
    }
    if let Some(file) = svg {
        std::fs::write(&file, chart::svg(&table.series()))?;
        println!("the picture is in {file}");
    }
    for name in [TOWERS, OURS] {
        println!("{name} keeps {:.2} of its peak goodput at twice the capacity", table.kept(name));
    }
    for (load, ratio) in table.over(OURS, TOWERS) {
        println!("load {load}: {OURS} over {TOWERS}, by round: {ratio:.3}");
    }
    println!("\n{table}");
    Ok(())
}

const TOWERS: &str = "tower's own";
const OURS: &str = "tower-kernels";

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
    round: usize,
    rate: f64,
}

impl Run<'_> {
    fn of<S>(&self, service: S, clients: Clients) -> Result<Tally, Failure>
    where
        S: Service<KernelRequest, Response = KernelResponse, Error: Send, Future: Send> + Clone + Send + 'static,
    {
        // The same times for all that are compared.
        let seed = (self.load * 100.0) as u64 + 1000 * self.round as u64;
        let tally = load::open_loop(self.runtime, service, self.request, clients, self.rate, seed)?;
        // What is left of it in queues is not the next one's.
        std::thread::sleep(DEADLINE * 4);
        Ok(tally)
    }
}
