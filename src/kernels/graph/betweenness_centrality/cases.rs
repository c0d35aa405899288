//! The test's inputs, and Brandes' algorithm from one source at a time as the reference.

use super::{BetweennessCentrality, BetweennessInput, BetweennessOutput};
use crate::kernels::authoring::{Cases, Expected, Random};

impl Cases for BetweennessCentrality {
    /// Random edges, so that some nodes are isolated. The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<BetweennessInput> {
        if nodes > 1_000 {
            return None;
        }
        let bound = nodes as u64;
        let edges = (0..2 * nodes).map(|_| [random.below(bound) as u32, random.below(bound) as u32]).collect();
        let directed = random.below(2) == 1;
        Some(BetweennessInput { directed, normalized: false, ..BetweennessInput::from_edges(bound, edges) })
    }

    fn share(&self, input: &mut BetweennessInput, with: &BetweennessInput) {
        *input = with.clone();
        // Another request on the same graph.
        input.normalized = true;
    }

    fn put_nan(&self, _: &mut BetweennessInput, _: usize) {}

    fn reference(&self, input: &BetweennessInput) -> Vec<Expected> {
        let graph = input.graph().expect("a valid graph");
        let nodes = graph.num_nodes();
        let neighbours = |node: usize| graph.successors().row(node as u32).iter().map(|&next| next as usize);
        let mut scores = vec![0.0; nodes];
        for source in 0..nodes {
            let (mut distance, mut paths) = (vec![usize::MAX; nodes], vec![0.0; nodes]);
            (distance[source], paths[source]) = (0, 1.0);
            let mut order = vec![source];
            let mut next = 0;
            while let Some(&node) = order.get(next) {
                next += 1;
                for neighbour in neighbours(node) {
                    if distance[neighbour] == usize::MAX {
                        distance[neighbour] = distance[node] + 1;
                        order.push(neighbour);
                    }
                    if distance[neighbour] == distance[node] + 1 {
                        paths[neighbour] += paths[node];
                    }
                }
            }
            let mut dependency = vec![0.0; nodes];
            for &node in order.iter().rev() {
                for neighbour in neighbours(node).filter(|&neighbour| distance[neighbour] == distance[node] + 1) {
                    dependency[node] += paths[node] / paths[neighbour] * (1.0 + dependency[neighbour]);
                }
                if node != source {
                    scores[node] += dependency[node];
                }
            }
        }
        let pairs = if input.directed { 1.0 } else { 2.0 };
        let values = scores.into_iter().map(|score| (score / pairs, 1e-9 * score + 1e-12)).collect();
        vec![Expected { name: "scores", values }]
    }

    fn values(&self, output: &BetweennessOutput) -> Vec<Vec<f64>> {
        vec![output.scores.to_vec()]
    }
}
