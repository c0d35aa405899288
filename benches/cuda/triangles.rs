//! Triangle counting on a stored graph of hubs, on CUDA and on the CPU.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::oriented::OrientedGraph;
use tower_kernels::kernels::graph::triangle_counting::{
    TriangleCounting, TriangleCountingInput, TriangleCountingOutput,
};
use tower_kernels::service::{Kernel, KernelRegistry, KernelService, Payload, RunContext};

use crate::call;
use crate::graphs::{dump, kron, ms};

pub(crate) fn run() {
    let (nodes, edges) = kron(18, 48);
    let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Undirected).unwrap();
    dump("kron", &graph);
    println!("\ntriangles of kron: {nodes} nodes, {} edges", graph.num_arcs() / 2);
    let start = Instant::now();
    let oriented = graph.oriented(&RunContext::detached()).unwrap();
    println!("    orienting the edges, once for a stored graph {:>10.1} ms", ms(start.elapsed()));
    let lookups = lookups(oriented);

    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let operand = registry.operands().put("kron", graph).unwrap();
    let input = TriangleCountingInput::from_operand(operand);
    let start = Instant::now();
    let expected = TriangleCounting.run_cpu(&input, &RunContext::detached()).unwrap();
    let threads = std::thread::available_parallelism().unwrap();
    println!("    on the CPU, {threads} threads {:>30.1} ms", ms(start.elapsed()));

    let backend = CudaBackend::with_config(0, CudaConfig::default()).unwrap();
    let mut service = KernelService::with_backend(registry, backend);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let input = Payload::typed(input);
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let response = runtime.block_on(call(&mut service, "graph/triangle-counting", &input));
            let time = start.elapsed();
            assert!(*response.payload.downcast::<TriangleCountingOutput>().unwrap() == expected);
            time
        })
        .collect();
    println!("    on CUDA, the first request {:>28.1} ms", ms(times[0]));
    times.sort();
    let rate = lookups as f64 / times[10].as_secs_f64() / 1e9;
    println!("    a request on the stored graph {:>25.2} ms, {rate:.0} G lookups/s", ms(times[10]));
}

/// How many nodes are looked up in hash sets: the successors of both ends of each arc.
fn lookups(graph: &OrientedGraph) -> u64 {
    graph.arcs().column_indices().iter().map(|&middle| graph.arcs().degree(middle) as u64).sum()
}
