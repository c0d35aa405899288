//! PageRank on a stored graph: the time of an iteration, for one score vector and for several that share the graph, beside
//! the time that its bytes take at the bandwidth of the memory. The same for eigenvector and Katz centrality.
//!
//! The graph is a directed Kronecker graph of 2^20 nodes with 32 draws a node. `benches/peers/pagerank_peers.py` takes the
//! same edges where `TOWER_KERNELS_BENCH_GRAPHS` says to write them.

use std::io::Write;
use std::time::{Duration, Instant};

use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::eigenvector_centrality::EigenvectorCentralityInput;
use tower_kernels::kernels::graph::katz_centrality::KatzCentralityInput;
use tower_kernels::kernels::graph::pagerank::{PageRankInput, PageRankOutput};
use tower_kernels::service::{Operand, Payload};

use crate::graphs::{kron, ms};
use crate::{Cuda, call, service};

const ID: &str = "graph/pagerank";
/// Bytes per second of an H200's memory.
const BANDWIDTH: f64 = 4.8e12;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (nodes, edges) = kron(20, 32);
    let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Directed).unwrap();
    let arcs = graph.num_arcs();
    println!("\nPageRank, {nodes} nodes, {arcs} arcs   ms an iteration   of the bandwidth   ms a request");
    dump(&graph);
    let mut service = service(|config| config.workers = 1);
    let stored = service.registry().operands().put("kron20", graph).unwrap();
    // Columns and flags once, and of each node: offsets twice, ranks of rows and the out-degree; of each vector its sums,
    // its ranks and its contributions, written and read.
    let bytes = |vectors: u64| (arcs as u64 * 33 / 8 + nodes * 20 + nodes * vectors * 48) as f64;
    for vectors in [1, 8] {
        let input = |max_iterations| {
            let seed_nodes = (vectors > 1).then(|| (0..vectors as u32).collect::<Vec<_>>().into());
            let options = PageRankInput { seed_nodes, tolerance: 0.0, max_iterations, ..PageRankInput::default() };
            Payload::typed(PageRankInput { graph: Some(stored.clone()), ..options })
        };
        let mut time = |max_iterations| {
            let input = input(max_iterations);
            let output = runtime.block_on(call(&mut service, ID, &input)).payload.downcast::<PageRankOutput>().unwrap();
            assert!(output.iterations.iter().all(|&count| count == max_iterations));
            assert!((output.scores.iter().sum::<f64>() - vectors as f64).abs() < 1e-9);
            median(&runtime, &mut service, ID, &input)
        };
        // The difference is that of 80 iterations alone.
        let (short, long) = (time(20), time(100));
        let iteration = (long - short).as_secs_f64() / 80.0;
        let share = bytes(vectors) / BANDWIDTH / iteration;
        println!("{vectors} vectors{:>41.4}{:>18.0} %{:>14.2}", iteration * 1e3, share * 100.0, ms(short));
    }
    centralities(&runtime, &mut service, &stored, bytes(1));
}

/// Eigenvector centrality reads and writes each score once more than PageRank, to normalize it.
fn centralities(runtime: &tokio::runtime::Runtime, service: &mut Cuda, stored: &Operand<CsrGraph>, bytes: f64) {
    let eigenvector = |max_iterations| {
        let input = EigenvectorCentralityInput::from_operand(stored.clone());
        Payload::typed(EigenvectorCentralityInput { max_iterations, tolerance: 0.0, ..input })
    };
    // Too small to grow beyond an f64 in so many iterations.
    let katz = |max_iterations| {
        let input = KatzCentralityInput::from_operand(stored.clone());
        Payload::typed(KatzCentralityInput { alpha: 1e-6, max_iterations, tolerance: 0.0, ..input })
    };
    let cases: [(&'static str, &dyn Fn(u32) -> Payload); 2] =
        [("graph/eigenvector-centrality", &eigenvector), ("graph/katz-centrality", &katz)];
    for (id, input) in cases {
        let mut time = |max_iterations| median(runtime, service, id, &input(max_iterations));
        let (short, long) = (time(20), time(100));
        let iteration = (long.as_secs_f64() - short.as_secs_f64()) / 80.0;
        println!(
            "{id:<40}{:>10.4}{:>18.0} %{:>14.2}",
            iteration * 1e3,
            bytes / BANDWIDTH / iteration * 100.0,
            ms(short)
        );
    }
}

fn median(runtime: &tokio::runtime::Runtime, service: &mut Cuda, id: &'static str, input: &Payload) -> Duration {
    let mut times: Vec<Duration> = (0..11)
        .map(|_| {
            let start = Instant::now();
            let response = runtime.block_on(call(service, id, input));
            assert_eq!(response.execution.backend, "CUDA");
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Writes the arcs as pairs of `u32`.
fn dump(graph: &CsrGraph) {
    let Some(folder) = std::env::var_os("TOWER_KERNELS_BENCH_GRAPHS") else { return };
    let path = std::path::Path::new(&folder).join("kron20-directed");
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for node in 0..graph.num_nodes() as u32 {
        for &successor in graph.successors().row(node) {
            file.write_all(&[node.to_ne_bytes(), successor.to_ne_bytes()].concat()).unwrap();
        }
    }
    file.flush().unwrap();
}
