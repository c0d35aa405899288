//! Communities and their modularity on a stored graph of hubs and on one of planted communities.
//!
//! `kron20` is that of the bench `traversal`. `planted20` has 2^20 nodes in groups of 64, and 16 edges drawn a node, of which
//! four in five stay within the group. `benches/peers/communities_peers.py` runs other libraries on the same graphs.

use std::sync::Arc;

use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::graph::csr::CsrGraph;
use tower_kernels::kernels::graph::label_propagation::{LabelPropagationInput, LabelPropagationOutput};
use tower_kernels::kernels::graph::louvain_community::{LouvainCommunityInput, LouvainCommunityOutput};
use tower_kernels::kernels::graph::modularity_score::{ModularityScoreInput, ModularityScoreOutput};
use tower_kernels::service::{KernelRegistry, KernelService, Operand, Payload};

use crate::graphs::{Graph, kron};
use crate::traversal::timed;

pub(crate) fn run() {
    println!("\ncommunities on a stored graph: median of 9; CUDA and CPU agree");
    measure("kron20", kron(20, 32));
    measure("planted20", planted(1 << 20));
}

pub(crate) fn planted(nodes: u32) -> (u64, Vec<[u32; 2]>) {
    let mut random = Random::new(3);
    let mut edge = |draw: u32| {
        let from = draw / 16;
        let to = if !draw.is_multiple_of(5) {
            from / 64 * 64 + random.below(64) as u32
        } else {
            random.below(nodes.into()) as u32
        };
        [from, to]
    };
    (nodes.into(), (0..16 * nodes).map(&mut edge).collect())
}

fn measure(name: &'static str, edges: (u64, Vec<[u32; 2]>)) {
    let graph = Graph::new(name, edges);
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let operand: Operand<CsrGraph> = registry.operands().put(name, graph.input.graph().unwrap()).unwrap();
    let config = CudaConfig { timing_sample_interval: 1, ..CudaConfig::default() };
    let cuda = CudaBackend::with_config(0, config).unwrap();
    let mut cuda = KernelService::with_backend(Arc::clone(&registry), cuda);
    let mut cpu = KernelService::with_backend(registry, CpuBackend::new());

    let input = Payload::typed(LabelPropagationInput::from_operand(operand.clone()));
    let id = "graph/label-propagation";
    let labels = timed::<_, LabelPropagationOutput>("label propagation, CUDA", &mut cuda, id, &input);
    let on_cpu = timed::<_, LabelPropagationOutput>("label propagation, CPU", &mut cpu, id, &input);
    assert!(labels == on_cpu);
    let LabelPropagationOutput { num_communities, modularity, iterations, .. } = *labels;
    println!("    {num_communities} communities, modularity {modularity:.4}, {iterations} sweeps");

    let id = "graph/modularity-score";
    let communities = labels.communities.clone();
    let input =
        Payload::typed(ModularityScoreInput { communities, ..ModularityScoreInput::from_operand(operand.clone()) });
    let score = timed::<_, ModularityScoreOutput>("modularity, CUDA", &mut cuda, id, &input);
    let on_cpu = timed::<_, ModularityScoreOutput>("modularity, CPU", &mut cpu, id, &input);
    assert!(score == on_cpu);

    let input = Payload::typed(LouvainCommunityInput::from_operand(operand));
    let id = "graph/louvain-community";
    let found = timed::<_, LouvainCommunityOutput>("Louvain, CUDA", &mut cuda, id, &input);
    let on_cpu = timed::<_, LouvainCommunityOutput>("Louvain, CPU", &mut cpu, id, &input);
    assert!(found == on_cpu);
    let LouvainCommunityOutput { num_communities, modularity, levels, iterations, .. } = *found;
    println!("    {num_communities} communities, modularity {modularity:.4}, {levels} levels, {iterations} sweeps");
}
