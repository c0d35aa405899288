//! Cycles and motifs of a stored graph of hubs, of a road-like grid and of planted communities, on CUDA and on the CPU.
//! `benches/peers/motif_peers.py` runs igraph on the same graphs.

use std::sync::Arc;
use std::time::Instant;

use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::cycle_participation::{
    CycleParticipation, CycleParticipationInput, CycleParticipationOutput,
};
use tower_kernels::kernels::graph::motif_detection::{MotifDetection, MotifDetectionInput, MotifDetectionOutput};
use tower_kernels::service::{Kernel, KernelRegistry, KernelService, Payload, RunContext};

use crate::communities::planted;
use crate::graphs::{dump, kron, ms, road};
use crate::traversal::timed;

pub(crate) fn run() {
    println!("\ncycles and motifs on a stored graph: median of 9; CUDA and CPU agree");
    measure("kron18", kron(18, 48));
    measure("road1024", road(1024));
    measure("planted18", planted(1 << 18));
}

fn measure(name: &'static str, (nodes, edges): (u64, Vec<[u32; 2]>)) {
    for (direction, suffix) in [(Direction::Undirected, ""), (Direction::Directed, ", directed")] {
        let graph = CsrGraph::from_edges(nodes as usize, &edges, direction).unwrap();
        if direction == Direction::Undirected {
            dump(name, &graph);
        }
        let (wedges, arcs) = (wedges(&graph), graph.num_arcs());
        println!("\n{name}{suffix}: {nodes} nodes, {arcs} arcs; {:.1} M wedges of neighbours", wedges as f64 / 1e6);
        let registry = Arc::new(KernelRegistry::new());
        tower_kernels::kernels::register_all(&registry).unwrap();
        let operand = registry.operands().put(name, graph).unwrap();
        let config = CudaConfig { timing_sample_interval: 1, ..CudaConfig::default() };
        let backend = CudaBackend::with_config(0, config).unwrap();
        let mut service = KernelService::with_backend(registry, backend);

        let input = CycleParticipationInput::from_operand(operand.clone());
        let start = Instant::now();
        let expected = CycleParticipation.run_cpu(&input, &RunContext::detached()).unwrap();
        println!("    {:<44}{:>10.1} ms", "cycles, CPU", ms(start.elapsed()));
        let input = Payload::typed(input);
        let cycles: Arc<CycleParticipationOutput> =
            timed("cycles, CUDA", &mut service, "graph/cycle-participation", &input);
        assert!(*cycles == expected);

        let input = MotifDetectionInput::from_operand(operand);
        let start = Instant::now();
        let expected = MotifDetection.run_cpu(&input, &RunContext::detached()).unwrap();
        println!("    {:<44}{:>10.1} ms", "motifs, CPU", ms(start.elapsed()));
        let input = Payload::typed(input);
        let motifs: Arc<MotifDetectionOutput> = timed("motifs, CUDA", &mut service, "graph/motif-detection", &input);
        assert!(*motifs == expected);
    }
}

/// The nodes that a wedge of which the first is of the highest degree ends at, counted once for each wedge.
fn wedges(graph: &CsrGraph) -> u64 {
    let oriented = graph.oriented(&RunContext::detached()).unwrap();
    let degrees = oriented.degrees();
    // A node's pairs of neighbours, of which not both are lower.
    let of_node = |node: u32| {
        let (all, higher) = (u64::from(degrees[node as usize]), oriented.arcs().degree(node) as u64);
        higher * (higher.saturating_sub(1)) / 2 + higher * (all - higher)
    };
    (0..graph.num_nodes() as u32).map(of_node).sum()
}
