//! The test's inputs, and degrees counted from the edges as the reference.

use super::{DegreeRatio, DegreeRatioInput, DegreeRatioOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for DegreeRatio {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<DegreeRatioInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let edges = random_edges(nodes, random);
        Some(DegreeRatioInput { directed: random.below(2) == 1, ..DegreeRatioInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut DegreeRatioInput, _: &DegreeRatioInput) {}

    fn put_nan(&self, _: &mut DegreeRatioInput, _: usize) {}

    fn reference(&self, input: &DegreeRatioInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, predecessors] = neighbours(nodes, edges, input.directed);
        let degrees = |neighbours: &[Vec<usize>]| -> Vec<(f64, f64)> {
            neighbours.iter().map(|neighbours| (neighbours.len() as f64, 0.0)).collect()
        };
        let (in_degrees, out_degrees) = (degrees(&predecessors), degrees(&successors));
        let ratios = in_degrees.iter().zip(&out_degrees).map(|(inward, outward)| (inward.0 / outward.0, 0.0)).collect();
        vec![
            Expected { name: "in_degrees", values: in_degrees },
            Expected { name: "out_degrees", values: out_degrees },
            Expected { name: "ratios", values: ratios },
        ]
    }

    fn values(&self, output: &DegreeRatioOutput) -> Vec<Vec<f64>> {
        let numbers = |degrees: &[u32]| degrees.iter().map(|&degree| degree.into()).collect();
        vec![numbers(&output.in_degrees), numbers(&output.out_degrees), output.ratios.to_vec()]
    }
}
