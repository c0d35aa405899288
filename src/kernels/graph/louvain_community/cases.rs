//! The test's inputs, and their cliques as the reference.

use std::collections::BTreeMap;

use super::{LouvainCommunity, LouvainCommunityInput, LouvainCommunityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};

impl Cases for LouvainCommunity {
    /// Cliques of 3 to 9 nodes without edges between them, whose nodes are mixed: no other communities have a higher
    /// modularity. All edges of a clique have the same weight. Some are given twice, the second time with more weight, and
    /// some are loops.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<LouvainCommunityInput> {
        let mut order: Vec<u32> = (0..nodes as u32).collect();
        (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
        let (mut edges, mut weights) = (Vec::new(), Vec::new());
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (clique, others) = rest.split_at(rest.len().min(3 + random.below(7) as usize));
            for (index, &node) in clique.iter().enumerate() {
                edges.extend(clique[..index].iter().map(|&other| [node, other]));
            }
            let weight = 0.1 * (1 + random.below(9)) as f32;
            weights.resize(edges.len(), weight);
            edges.push([clique[0], clique[clique.len() - 1]]);
            weights.push(2.0 * weight);
            rest = others;
        }
        let weights = (random.below(2) == 1).then(|| weights.into());
        let use_weights = random.below(4) > 0;
        let input = LouvainCommunityInput::from_edges(nodes as u64, edges);
        Some(LouvainCommunityInput { min_modularity_gain: 0.0, seed: random.word(), weights, use_weights, ..input })
    }

    fn share(&self, _: &mut LouvainCommunityInput, _: &LouvainCommunityInput) {}

    fn put_nan(&self, input: &mut LouvainCommunityInput, _: usize) {
        input.min_modularity_gain = f64::NAN;
    }

    fn reference(&self, input: &LouvainCommunityInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        // All nodes of a clique are neighbours of its lowest one.
        let mut lowest: Vec<u32> = (0..nodes as u32).collect();
        let mut degrees = vec![0.0; nodes];
        let weights = input.weights.as_deref().filter(|_| input.use_weights);
        let mut distinct = BTreeMap::new();
        for (edge, &[a, b]) in edges.iter().enumerate().filter(|(_, [a, b])| a != b) {
            let weight = weights.map_or(1.0, |weights| weights[edge]);
            let least = distinct.entry([a.min(b), a.max(b)]).or_insert(weight);
            *least = least.min(weight);
        }
        for ([low, high], weight) in distinct {
            lowest[high as usize] = lowest[high as usize].min(low);
            degrees[low as usize] += f64::from(weight);
            degrees[high as usize] += f64::from(weight);
        }
        let (mut communities, mut sizes, mut degree_sums) = (vec![0; nodes], Vec::new(), Vec::new());
        for node in 0..nodes {
            if lowest[node] as usize == node {
                communities[node] = sizes.len();
                sizes.push(0);
                degree_sums.push(0.0);
            } else {
                communities[node] = communities[lowest[node] as usize];
            }
            sizes[communities[node]] += 1;
            degree_sums[communities[node]] += degrees[node];
        }
        let all: f64 = degrees.iter().sum();
        let modularity =
            if all == 0.0 { 0.0 } else { 1.0 - degree_sums.iter().map(|sum| (sum / all).powi(2)).sum::<f64>() };
        let exact = |values: &[usize]| values.iter().map(|&value| (value as f64, 0.0)).collect();
        vec![
            Expected { name: "communities", values: exact(&communities) },
            Expected { name: "sizes", values: exact(&sizes) },
            Expected { name: "num_communities", values: exact(&[sizes.len()]) },
            Expected { name: "modularity", values: vec![(modularity, 1e-12)] },
        ]
    }

    fn values(&self, output: &LouvainCommunityOutput) -> Vec<Vec<f64>> {
        let values = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![
            values(&output.communities),
            values(&output.sizes),
            vec![output.num_communities.into()],
            vec![output.modularity],
        ]
    }
}
