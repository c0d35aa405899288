//! Similarity of nodes and cliques on a stored graph of hubs, on CUDA and on the CPU.
//!
//! `benches/peers/neighborhood_peers.py` has the times of cupyx and igraph on the same graph.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::graph::adamic_adar::{AdamicAdar, AdamicAdarInput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::jaccard_similarity::{JaccardSimilarity, JaccardSimilarityInput};
use tower_kernels::kernels::graph::k_clique::{KClique, KCliqueInput};
use tower_kernels::service::{Kernel, KernelRegistry, KernelService, Operand, Payload, RunContext};

use crate::graphs::{dump, kron, ms};
use crate::{Cuda, call};

/// Bytes per second of an H200's memory.
const BANDWIDTH: f64 = 4.8e12;
const PAIRS: usize = 1 << 20;
const NODES: usize = 1_000;

pub(crate) fn run() {
    let (nodes, edges) = kron(18, 48);
    let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Undirected).unwrap();
    dump("kron", &graph);
    let threads = std::thread::available_parallelism().unwrap();
    println!(
        "\nneighbourhoods in kron: {nodes} nodes, {} edges      CUDA p50, ms   CPU, {threads} threads",
        graph.num_arcs() / 2
    );
    let mut random = Random::new(5);
    let ends = graph.successors().column_indices();
    let mut by_edge = || ends[random.below(ends.len() as u64) as usize];
    let pairs: Vec<[u32; 2]> = (0..PAIRS).map(|_| [by_edge(), by_edge()]).filter(|[a, b]| a != b).collect();
    let popular: Vec<u32> = (0..NODES).map(|_| by_edge()).collect();
    let with_neighbors = |&node: &u32| graph.successors().degree(node) > 0;
    let uniform: Vec<u32> = (0..).map(|_| random.below(nodes) as u32).filter(with_neighbors).take(NODES).collect();
    let degree = |&node: &u32| graph.successors().degree(node) as f64;
    let pair_bytes = 4.0 * pairs.iter().flatten().map(degree).sum::<f64>();
    let wedges = |sources: &[u32]| {
        let rows = sources.iter().flat_map(|&source| graph.successors().row(source));
        rows.map(degree).sum::<f64>()
    };
    let [uniform_wedges, popular_wedges] = [&uniform, &popular].map(|sources| wedges(sources));

    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let graph = registry.operands().put("kron", graph).unwrap();
    let backend = CudaBackend::with_config(0, CudaConfig::default()).unwrap();
    let mut service = KernelService::with_backend(registry, backend);
    let row = |name: &str, wedges: f64, time: [f64; 2]| {
        let roof = 4.0 * wedges / BANDWIDTH * 1e3;
        let [cuda, cpu] = time;
        println!("    {name:<52}{cuda:>10.2}{cpu:>14.1}   {roof:.2} ms for the columns of the rows at 4.8 TB/s");
    };
    let jaccard = || JaccardSimilarityInput::from_operand(graph.clone());
    let weighted = || AdamicAdarInput::from_operand(graph.clone());
    for (name, nodes, wedges) in [("uniform", uniform, uniform_wedges), ("by edge", popular, popular_wedges)] {
        let nodes = Some(nodes.into());
        let input = JaccardSimilarityInput { nodes: nodes.clone(), ..jaccard() };
        let time = times(&mut service, JaccardSimilarity, "graph/jaccard-similarity", input);
        row(&format!("Jaccard, best 10 for {NODES} nodes, {name}"), wedges, time);
        let time = times(&mut service, AdamicAdar, "graph/adamic-adar", AdamicAdarInput { nodes, ..weighted() });
        row(&format!("Adamic-Adar, best 10 for {NODES} nodes, {name}"), wedges, time);
    }
    let input = JaccardSimilarityInput { pairs: Some(pairs.clone()), ..jaccard() };
    let time = times(&mut service, JaccardSimilarity, "graph/jaccard-similarity", input);
    row(&format!("Jaccard of {} pairs, ends by edge", pairs.len()), pair_bytes / 4.0, time);
    let input = AdamicAdarInput { pairs: Some(pairs), ..weighted() };
    let time = times(&mut service, AdamicAdar, "graph/adamic-adar", input);
    row("Adamic-Adar of the same", pair_bytes / 4.0, time);
    cliques(&mut service, &graph);
}

fn cliques(service: &mut Cuda, graph: &Operand<CsrGraph>) {
    for k in [3, 4] {
        let input = KCliqueInput { k, ..KCliqueInput::from_operand(graph.clone()) };
        let [cuda, cpu] = times(service, KClique, "graph/k-clique", input);
        println!("    {:<52}{cuda:>10.2}{cpu:>14.1}", format!("cliques of {k} nodes"));
    }
}

/// The median of requests on CUDA and the time of a run on the CPU, in milliseconds. Their outputs are the same.
fn times<K>(service: &mut Cuda, kernel: K, id: &'static str, input: K::Input) -> [f64; 2]
where
    K: Kernel,
    K::Input: Any + Send + Sync,
    K::Output: PartialEq + Any + Send + Sync,
{
    let start = Instant::now();
    let expected = kernel.run_cpu(&input, &RunContext::detached()).unwrap();
    let cpu = ms(start.elapsed());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let input = Payload::typed(input);
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let response = runtime.block_on(call(service, id, &input));
            let time = ms(start.elapsed());
            assert_eq!(response.execution.backend, "CUDA");
            assert!(*response.payload.downcast::<K::Output>().unwrap() == expected, "{id}");
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[3], cpu]
}
