//! The test's inputs, and the edges counted by their definition as the reference.

use super::{Density, DensityInput, DensityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for Density {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<DensityInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let edges = random_edges(nodes, random);
        Some(DensityInput { directed: random.below(2) == 1, ..DensityInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut DensityInput, _: &DensityInput) {}

    fn put_nan(&self, _: &mut DensityInput, _: usize) {}

    fn reference(&self, input: &DensityInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, _] = neighbours(nodes, edges, input.directed);
        let arcs = successors.iter().map(|successors| successors.len()).sum::<usize>() as f64;
        let edges = if input.directed { arcs } else { arcs / 2.0 };
        let possible = nodes as f64 * (nodes as f64 - 1.0) / if input.directed { 1.0 } else { 2.0 };
        let density = if edges == 0.0 { 0.0 } else { edges / possible };
        vec![
            Expected { name: "density", values: vec![(density, 1e-15)] },
            Expected { name: "num_nodes", values: vec![(nodes as f64, 0.0)] },
            Expected { name: "num_edges", values: vec![(edges, 0.0)] },
        ]
    }

    fn values(&self, output: &DensityOutput) -> Vec<Vec<f64>> {
        vec![vec![output.density], vec![output.num_nodes as f64], vec![output.num_edges as f64]]
    }
}
