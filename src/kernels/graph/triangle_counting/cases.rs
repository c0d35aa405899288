//! The test's inputs, and every pair of neighbours looked up among the edges as the reference.

use super::{TriangleCounting, TriangleCountingInput, TriangleCountingOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{clustered_edges, neighbours, triangles};

impl Cases for TriangleCounting {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<TriangleCountingInput> {
        if nodes > 5_000 {
            return None;
        }
        let edges = clustered_edges(nodes, random);
        let directed = random.below(2) == 1;
        Some(TriangleCountingInput { directed, ..TriangleCountingInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, input: &mut TriangleCountingInput, with: &TriangleCountingInput) {
        *input = with.clone();
    }

    fn put_nan(&self, _: &mut TriangleCountingInput, _: usize) {}

    fn reference(&self, input: &TriangleCountingInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let triangles = triangles(&neighbours);
        let pairs = |node: usize| (neighbours[node].len() * neighbours[node].len().saturating_sub(1) / 2) as f64;
        let fraction = |part: f64, whole: f64| (if whole > 0.0 { part / whole } else { 0.0 }, 1e-15);
        let sum: f64 = triangles.iter().sum();
        let all_pairs: f64 = (0..nodes).map(pairs).sum();
        vec![
            Expected { name: "total_triangles", values: vec![(sum / 3.0, 0.0)] },
            Expected { name: "per_node_triangles", values: triangles.iter().map(|&count| (count, 0.0)).collect() },
            Expected {
                name: "clustering_coefficients",
                values: (0..nodes).map(|node| fraction(triangles[node], pairs(node))).collect(),
            },
            Expected { name: "global_clustering_coefficient", values: vec![fraction(sum, all_pairs)] },
        ]
    }

    fn values(&self, output: &TriangleCountingOutput) -> Vec<Vec<f64>> {
        vec![
            vec![output.total_triangles as f64],
            output.per_node_triangles.iter().map(|&count| count as f64).collect(),
            output.clustering_coefficients.to_vec(),
            vec![output.global_clustering_coefficient],
        ]
    }
}
