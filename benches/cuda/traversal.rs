//! Connected components, weak and strong, shortest paths and closeness on a stored graph of hubs and on one of long paths.
//!
//! `kron20` is a Graph500 Kronecker graph of 2^20 nodes with 32 draws a node; `road` is that of the bench `graphs`, with
//! 2^20 nodes. `benches/peers/traversal_peers.py` runs other libraries on the same graphs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::graph::closeness_centrality::{ClosenessInput, ClosenessOutput};
use tower_kernels::kernels::graph::connected_components::{ConnectedComponentsInput, ConnectedComponentsOutput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::shortest_path::{ShortestPathInput, ShortestPathOutput};
use tower_kernels::service::{
    Job, KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Operand, Payload,
};

use crate::graphs::{Graph, kron, ms, road};

pub(crate) fn run() {
    println!("\ncomponents and distances on a stored graph: median of 9; CUDA and CPU agree");
    measure("kron20", kron(20, 32));
    measure("road", road(1024));
}

fn measure(name: &'static str, edges: (u64, Vec<[u32; 2]>)) {
    let graph = Graph::new(name, edges);
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let operand: Operand<CsrGraph> = registry.operands().put(name, graph.input.graph().unwrap()).unwrap();
    let config = CudaConfig { timing_sample_interval: 1, ..CudaConfig::default() };
    let cuda = CudaBackend::with_config(0, config).unwrap();
    let mut cuda = KernelService::with_backend(Arc::clone(&registry), cuda);
    let mut cpu = KernelService::with_backend(Arc::clone(&registry), CpuBackend::new());

    let input = Payload::typed(ConnectedComponentsInput::from_operand(operand.clone()));
    let id = "graph/connected-components";
    let on_cuda = timed::<_, ConnectedComponentsOutput>("components, CUDA", &mut cuda, id, &input);
    let on_cpu = timed::<_, ConnectedComponentsOutput>("components, CPU", &mut cpu, id, &input);
    assert!(on_cuda == on_cpu);
    println!("    {} components", on_cuda.num_components);
    strong_components(&graph, &mut cuda, &mut cpu);

    let id = "graph/shortest-path";
    for (count, predecessors) in [(1, false), (1, true), (64, false)] {
        let sources = graph.sources[..count].to_vec().into();
        let input = ShortestPathInput { sources, predecessors, ..ShortestPathInput::from_operand(operand.clone()) };
        let input = Payload::typed(input);
        let of = format!("{count} sources{}", if predecessors { ", predecessors" } else { "" });
        let on_cuda = timed::<_, ShortestPathOutput>(&format!("distances, {of}, CUDA"), &mut cuda, id, &input);
        let on_cpu = timed::<_, ShortestPathOutput>(&format!("distances, {of}, CPU"), &mut cpu, id, &input);
        assert!(on_cuda == on_cpu);
        let reached = on_cuda.distances.iter().filter(|&&distance| distance != u32::MAX);
        println!("    {} levels", reached.max().map_or(0, |depth| depth + 1));
    }

    let weighted = weighted(operand.value().unwrap());
    let weighted: Operand<CsrGraph> = registry.operands().put("weighted", weighted).unwrap();
    for (count, predecessors) in [(1, false), (1, true), (64, false)] {
        let sources = graph.sources[..count].to_vec().into();
        let input = ShortestPathInput { sources, predecessors, ..ShortestPathInput::from_operand(weighted.clone()) };
        let input = Payload::typed(input);
        let of = format!("{count} sources{}", if predecessors { ", predecessors" } else { "" });
        let on_cuda = timed::<_, ShortestPathOutput>(&format!("by weights, {of}, CUDA"), &mut cuda, id, &input);
        let on_cpu = timed::<_, ShortestPathOutput>(&format!("by weights, {of}, CPU"), &mut cpu, id, &input);
        assert!(on_cuda == on_cpu);
    }

    let id = "graph/closeness-centrality";
    let input = |samples, nodes: Option<&[u32]>| {
        let nodes = nodes.map(|nodes| nodes.to_vec().into());
        Payload::typed(ClosenessInput { samples, nodes, ..ClosenessInput::from_operand(operand.clone()) })
    };
    let mut of_some = graph.sources[..64].to_vec();
    of_some.sort_unstable();
    of_some.dedup();
    for (of, input) in [
        ("64 nodes", input(None, Some(&of_some))),
        ("64 samples", input(Some(64), None)),
        ("1024 samples", input(Some(1024), None)),
    ] {
        let on_cuda = timed::<_, ClosenessOutput>(&format!("closeness, {of}, CUDA"), &mut cuda, id, &input);
        let on_cpu = timed::<_, ClosenessOutput>(&format!("closeness, {of}, CPU"), &mut cpu, id, &input);
        assert!(on_cuda == on_cpu);
    }
}

/// The graph with weights from 1 to 1 000 that its edges have by their places in the dump of the graph.
fn weighted(graph: &CsrGraph) -> CsrGraph {
    let neighbours = |node| graph.successors().row(node).iter().map(move |&other| [node, other]);
    let edges: Vec<_> = (0..graph.num_nodes() as u32).flat_map(neighbours).filter(|[from, to]| from < to).collect();
    let weight = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 1_000 + 1;
    let weights: Vec<f32> = (0..edges.len() as u64).map(|index| weight(index) as f32).collect();
    CsrGraph::from_weighted_edges(graph.num_nodes(), &edges, &weights, Direction::Undirected).unwrap()
}

/// The strong components of the graph with each of its edges one way, and of a path one way with a third of its edges both
/// ways: a long chain of small components.
fn strong_components(graph: &Graph, cuda: &mut KernelService<CudaBackend>, cpu: &mut KernelService<CpuBackend>) {
    let undirected = graph.input.graph().unwrap();
    let nodes = undirected.num_nodes() as u32;
    let arcs = (0..nodes).flat_map(|from| undirected.successors().row(from).iter().map(move |&to| [from, to]));
    // As in the script of the peers.
    let one_way = arcs.filter(|[from, to]| (from < to) == ((from + to) % 3 != 0)).collect();
    // A permutation, as the factor is odd and the number of nodes is a power of 2.
    let mixed = |node: u32| node.wrapping_mul(0x9e37_79b1) % nodes;
    let mut chain: Vec<[u32; 2]> = (1..nodes).map(|node| [mixed(node - 1), mixed(node)]).collect();
    chain.extend((1..nodes).step_by(3).map(|node| [mixed(node), mixed(node - 1)]));
    for (of, edges) in [("one way", one_way), ("a chain", chain)] {
        let directed = CsrGraph::from_edges(nodes as usize, &edges, Direction::Directed).unwrap();
        let operand: Operand<CsrGraph> = cuda.registry().operands().put("directed", directed).unwrap();
        let input = ConnectedComponentsInput { strong: true, ..ConnectedComponentsInput::from_operand(operand) };
        let (id, input) = ("graph/connected-components", Payload::typed(input));
        let on_cuda = timed::<_, ConnectedComponentsOutput>(&format!("strong, {of}, CUDA"), cuda, id, &input);
        let on_cpu = timed::<_, ConnectedComponentsOutput>(&format!("strong, {of}, CPU"), cpu, id, &input);
        assert!(on_cuda == on_cpu);
        println!("    {} strong components", on_cuda.num_components);
    }
}

/// Prints the median time of a request and of its kernels; returns the output.
pub(crate) fn timed<B, T>(name: &str, service: &mut KernelService<B>, id: &'static str, input: &Payload) -> Arc<T>
where
    B: Service<Job, Response = KernelResponse, Error = KernelError>,
    T: std::any::Any + Send + Sync,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut times = Vec::new();
    let mut output = None;
    for _ in 0..10 {
        let start = Instant::now();
        let response = runtime.block_on(async {
            service.ready().await.unwrap().call(KernelRequest::new(id, input.clone())).await.unwrap()
        });
        let kernel = response.execution.device_times().map_or(Duration::ZERO, |times| times.kernel);
        times.push((start.elapsed(), kernel));
        output = response.payload.downcast();
    }
    // The first one uploads the graph.
    times.remove(0);
    times.sort();
    let (time, kernel) = times[times.len() / 2];
    println!("    {name:<44}{:>10.3} ms, kernels {:>8.3} ms", ms(time), ms(kernel));
    output.expect("an output of this type")
}
