//! The test's inputs, and their cliques as the reference.

use super::{LouvainCommunity, LouvainCommunityInput, LouvainCommunityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};

impl Cases for LouvainCommunity {
    /// Cliques of 3 to 9 nodes without edges between them, whose nodes are mixed: no other communities have a higher
    /// modularity. Some edges are given twice, and some are loops.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<LouvainCommunityInput> {
        let mut order: Vec<u32> = (0..nodes as u32).collect();
        (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
        let mut edges = Vec::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (clique, others) = rest.split_at(rest.len().min(3 + random.below(7) as usize));
            for (index, &node) in clique.iter().enumerate() {
                edges.extend(clique[..index].iter().map(|&other| [node, other]));
            }
            edges.push([clique[0], clique[clique.len() - 1]]);
            rest = others;
        }
        let input = LouvainCommunityInput::from_edges(nodes as u64, edges);
        Some(LouvainCommunityInput { min_modularity_gain: 0.0, seed: random.word(), ..input })
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
        let mut degrees = vec![0; nodes];
        let mut distinct: Vec<[u32; 2]> = edges.iter().map(|&[a, b]| [a.min(b), a.max(b)]).collect();
        distinct.sort_unstable();
        distinct.dedup();
        for [low, high] in distinct.into_iter().filter(|[low, high]| low != high) {
            lowest[high as usize] = lowest[high as usize].min(low);
            degrees[low as usize] += 1;
            degrees[high as usize] += 1;
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
            degree_sums[communities[node]] += f64::from(degrees[node]);
        }
        let arcs = degrees.iter().sum::<i32>();
        let expected = degree_sums.iter().map(|sum| (sum / f64::from(arcs.max(1))).powi(2)).sum::<f64>();
        let modularity = if arcs == 0 { 0.0 } else { 1.0 - expected };
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
