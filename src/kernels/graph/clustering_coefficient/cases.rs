//! The test's inputs, and every pair of neighbours looked up among the edges as the reference.

use super::{ClusteringCoefficient, ClusteringCoefficientInput, ClusteringCoefficientOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{clustered_edges, neighbours, triangles};

impl Cases for ClusteringCoefficient {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ClusteringCoefficientInput> {
        if nodes > 5_000 {
            return None;
        }
        let edges = clustered_edges(nodes, random);
        let count_zeros = random.below(2) == 1;
        Some(ClusteringCoefficientInput { count_zeros, ..ClusteringCoefficientInput::from_edges(nodes as u64, edges) })
    }

    /// On the graph of the other, with an option of its own.
    fn share(&self, input: &mut ClusteringCoefficientInput, with: &ClusteringCoefficientInput) {
        *input = ClusteringCoefficientInput { count_zeros: input.count_zeros, ..with.clone() };
    }

    fn put_nan(&self, _: &mut ClusteringCoefficientInput, _: usize) {}

    fn reference(&self, input: &ClusteringCoefficientInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let fraction = |(neighbours, triangles): (&Vec<usize>, f64)| match neighbours.len() as f64 {
            degree if degree < 2.0 => 0.0,
            degree => 2.0 * triangles / (degree * (degree - 1.0)),
        };
        let coefficients: Vec<f64> = neighbours.iter().zip(triangles(&neighbours)).map(fraction).collect();
        let counted = coefficients.iter().filter(|&&value| input.count_zeros || value > 0.0);
        let average = coefficients.iter().sum::<f64>() / counted.count().max(1) as f64;
        vec![
            Expected { name: "coefficients", values: coefficients.into_iter().map(|value| (value, 1e-15)).collect() },
            Expected { name: "average", values: vec![(average, 1e-14)] },
        ]
    }

    fn values(&self, output: &ClusteringCoefficientOutput) -> Vec<Vec<f64>> {
        vec![output.coefficients.to_vec(), vec![output.average]]
    }
}
