//! The test's inputs, and the definition with a sum over all pairs of nodes as the reference.

use super::{ModularityScore, ModularityScoreInput, ModularityScoreOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for ModularityScore {
    /// Few communities or many, of random nodes, or of nodes with edges between them.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ModularityScoreInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // A hub, and cliques of neighbouring numbers.
        edges.extend((0..nodes as u32).map(|node| [0, node]));
        edges.extend((0..nodes as u32).filter(|node| node % 16 > 0).map(|node| [node, node - node % 16]));
        let most_communities = [1, 7, nodes.max(1) as u64][random.below(3) as usize];
        let num_communities = 1 + random.below(most_communities);
        let is_random = random.below(2) == 1;
        let mut community = |node: usize| {
            if is_random { random.below(num_communities) as usize % nodes } else { node - node % 16 }
        };
        let communities = (0..nodes).map(|node| community(node) as u32).collect::<Vec<_>>().into();
        let (resolution, directed) = (random.between(0.0, 2.0), random.below(2) == 1);
        let input = ModularityScoreInput::from_edges(nodes as u64, edges);
        Some(ModularityScoreInput { communities, resolution, directed, ..input })
    }

    fn share(&self, _: &mut ModularityScoreInput, _: &ModularityScoreInput) {}

    fn put_nan(&self, input: &mut ModularityScoreInput, _: usize) {
        input.resolution = f64::NAN;
    }

    fn reference(&self, input: &ModularityScoreInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, predecessors] = neighbours(nodes, edges, input.directed);
        let arcs = successors.iter().map(Vec::len).sum::<usize>() as f64;
        let (mut modularity, mut coverage) = (0.0, 0.0);
        for (from, successors) in successors.iter().enumerate() {
            for to in (0..nodes).filter(|&to| input.communities[from] == input.communities[to]) {
                let is_arc = f64::from(u8::from(successors.binary_search(&to).is_ok()));
                let expected = successors.len() as f64 * predecessors[to].len() as f64 / arcs.max(1.0);
                modularity += is_arc - input.resolution * expected;
                coverage += is_arc;
            }
        }
        let of_arcs = |name, sum: f64| Expected { name, values: vec![(sum / arcs.max(1.0), 1e-12)] };
        vec![of_arcs("modularity", modularity), of_arcs("coverage", coverage)]
    }

    fn values(&self, output: &ModularityScoreOutput) -> Vec<Vec<f64>> {
        vec![vec![output.modularity], vec![output.coverage]]
    }
}
