//! The test's inputs, and the definition with a sum over all pairs of nodes as the reference.

use super::{ModularityScore, ModularityScoreInput, ModularityScoreOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::random_edges;

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
        let weight = |random: &mut Random| random.below(9) as f32 * 2_f32.powi(random.below(8) as i32);
        let weights = (random.below(2) == 1).then(|| edges.iter().map(|_| weight(random)).collect::<Vec<_>>().into());
        let use_weights = random.below(4) > 0;
        let input = ModularityScoreInput::from_edges(nodes as u64, edges);
        Some(ModularityScoreInput { communities, resolution, directed, weights, use_weights, ..input })
    }

    fn share(&self, _: &mut ModularityScoreInput, _: &ModularityScoreInput) {}

    fn put_nan(&self, input: &mut ModularityScoreInput, _: usize) {
        input.resolution = f64::NAN;
    }

    fn reference(&self, input: &ModularityScoreInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let given = input.weights.as_deref().filter(|_| input.use_weights);
        let mut weights: Vec<Vec<Option<f64>>> = vec![vec![None; nodes]; nodes];
        for (edge, &[from, to]) in edges.iter().enumerate().filter(|(_, [from, to])| from != to) {
            let weight = given.map_or(1.0, |given| f64::from(given[edge]));
            let directions = [[from, to], [to, from]];
            for [from, to] in directions.into_iter().take(if input.directed { 1 } else { 2 }) {
                let least = &mut weights[from as usize][to as usize];
                *least = Some(least.map_or(weight, |least| least.min(weight)));
            }
        }
        let weight = |from: usize, to: usize| weights[from][to].unwrap_or(0.0);
        let out_degrees: Vec<f64> = (0..nodes).map(|from| (0..nodes).map(|to| weight(from, to)).sum()).collect();
        let in_degrees: Vec<f64> = (0..nodes).map(|to| (0..nodes).map(|from| weight(from, to)).sum()).collect();
        let all = out_degrees.iter().sum::<f64>();
        // Without any weight both are 0.
        let divisor = if all == 0.0 { 1.0 } else { all };
        let (mut modularity, mut coverage) = (0.0, 0.0);
        for (from, out_degree) in out_degrees.iter().enumerate() {
            for to in (0..nodes).filter(|&to| input.communities[from] == input.communities[to]) {
                let expected = out_degree * in_degrees[to] / divisor;
                modularity += weight(from, to) - input.resolution * expected;
                coverage += weight(from, to);
            }
        }
        let of_all = |name, sum: f64| Expected { name, values: vec![(sum / divisor, 1e-12)] };
        vec![of_all("modularity", modularity), of_all("coverage", coverage)]
    }

    fn values(&self, output: &ModularityScoreOutput) -> Vec<Vec<f64>> {
        vec![vec![output.modularity], vec![output.coverage]]
    }
}
