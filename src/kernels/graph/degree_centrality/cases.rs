//! The test's inputs, and degrees counted from the edges as the reference.

use super::{Degree, DegreeCentrality, DegreeCentralityInput, DegreeCentralityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for DegreeCentrality {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<DegreeCentralityInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let edges = random_edges(nodes, random);
        let degree = [Degree::Total, Degree::In, Degree::Out][random.below(3) as usize];
        let (directed, normalized) = (random.below(2) == 1, random.below(2) == 1);
        let input = DegreeCentralityInput::from_edges(nodes as u64, edges);
        Some(DegreeCentralityInput { directed, degree, normalized, ..input })
    }

    fn share(&self, _: &mut DegreeCentralityInput, _: &DegreeCentralityInput) {}

    fn put_nan(&self, _: &mut DegreeCentralityInput, _: usize) {}

    fn reference(&self, input: &DegreeCentralityInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, predecessors] = neighbours(nodes, edges, input.directed);
        let score = |node: usize| {
            let degree = match input.degree {
                Degree::Total if input.directed => successors[node].len() + predecessors[node].len(),
                Degree::Total | Degree::Out => successors[node].len(),
                Degree::In => predecessors[node].len(),
            };
            match input.normalized {
                true if nodes == 1 => (1.0, 0.0),
                true => (degree as f64 / (nodes - 1) as f64, 0.0),
                false => (degree as f64, 0.0),
            }
        };
        vec![Expected { name: "scores", values: (0..nodes).map(score).collect() }]
    }

    fn values(&self, output: &DegreeCentralityOutput) -> Vec<Vec<f64>> {
        vec![output.scores.to_vec()]
    }
}
