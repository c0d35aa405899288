//! The test's inputs, and the definition with a dense loop over all edges as the reference.

use super::{EigenvectorCentrality, EigenvectorCentralityInput, EigenvectorCentralityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for EigenvectorCentrality {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<EigenvectorCentralityInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // A hub, whose row is split over several chunks.
        edges.extend((0..nodes as u32).filter(|node| node % 3 == 0).map(|node| [node, 0]));
        let input = EigenvectorCentralityInput::from_edges(nodes as u64, edges);
        let (directed, max_iterations) = (random.below(2) == 1, 5 + random.below(40) as u32);
        Some(EigenvectorCentralityInput { directed, max_iterations, tolerance: 1e-12 / nodes.max(1) as f64, ..input })
    }

    /// On the graph of the other, with limits of its own.
    fn share(&self, input: &mut EigenvectorCentralityInput, with: &EigenvectorCentralityInput) {
        let max_iterations = input.max_iterations;
        let tolerance =
            if max_iterations.is_multiple_of(2) { 1e-4 / f64::from(max_iterations) } else { input.tolerance };
        *input = EigenvectorCentralityInput { max_iterations, tolerance, ..with.clone() };
    }

    fn put_nan(&self, _: &mut EigenvectorCentralityInput, _: usize) {}

    fn reference(&self, input: &EigenvectorCentralityInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [_, predecessors] = neighbours(nodes, edges, input.directed);
        let mut scores = vec![1.0 / nodes as f64; nodes];
        let (mut difference, mut iterations) = (f64::INFINITY, 0);
        while iterations < input.max_iterations && difference >= nodes as f64 * input.tolerance {
            let sum = |node: usize| scores[node] + predecessors[node].iter().map(|&from| scores[from]).sum::<f64>();
            let product: Vec<f64> = (0..nodes).map(sum).collect();
            let norm = product.iter().fold(0.0_f64, |norm, value| norm.hypot(*value));
            let next: Vec<f64> = product.iter().map(|value| value / norm).collect();
            difference = next.iter().zip(&scores).map(|(next, score)| (next - score).abs()).sum();
            scores = next;
            iterations += 1;
        }
        vec![
            Expected { name: "scores", values: scores.iter().map(|&score| (score, 1e-12)).collect() },
            Expected { name: "iterations", values: vec![(iterations.into(), 0.0)] },
            Expected { name: "difference", values: vec![(difference, 1e-10)] },
        ]
    }

    fn values(&self, output: &EigenvectorCentralityOutput) -> Vec<Vec<f64>> {
        vec![output.scores.to_vec(), vec![output.iterations.into()], vec![output.difference]]
    }
}
