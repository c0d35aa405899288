//! The test's inputs, and the definition with a dense loop over all edges as the reference.

use super::{KatzCentrality, KatzCentralityInput, KatzCentralityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};
use crate::service::FloatArray;

impl Cases for KatzCentrality {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<KatzCentralityInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // A hub, whose row is split over several chunks.
        edges.extend((0..nodes as u32).filter(|node| node % 3 == 0).map(|node| [node, 0]));
        let beta = match random.below(3) {
            0 => FloatArray::One(random.number()),
            1 => (0..nodes).map(|_| random.number()).collect::<Vec<f64>>().into(),
            _ => (0..nodes).map(|_| random.number() as f32).collect::<Vec<f32>>().into(),
        };
        let (directed, normalized) = (random.below(2) == 1, random.below(2) == 1);
        let (alpha, max_iterations) = (random.between(0.0, 0.02), 5 + random.below(40) as u32);
        let input = KatzCentralityInput::from_edges(nodes as u64, edges);
        let tolerance = 1e-12 / nodes.max(1) as f64;
        Some(KatzCentralityInput { directed, normalized, alpha, beta, max_iterations, tolerance, ..input })
    }

    /// On the graph of the other, with options of its own.
    fn share(&self, input: &mut KatzCentralityInput, with: &KatzCentralityInput) {
        let KatzCentralityInput { alpha, normalized, max_iterations, .. } = *input;
        let beta = match max_iterations % 3 {
            0 => with.beta.clone(),
            _ => FloatArray::One(f64::from(max_iterations) - 20.0),
        };
        let tolerance =
            if max_iterations.is_multiple_of(2) { 1e-4 / f64::from(max_iterations) } else { input.tolerance };
        *input = KatzCentralityInput { alpha, beta, normalized, max_iterations, tolerance, ..with.clone() };
    }

    fn put_nan(&self, input: &mut KatzCentralityInput, row: usize) {
        if let FloatArray::F64(betas) = &input.beta {
            let mut betas = betas.to_vec();
            betas[row] = f64::NAN;
            input.beta = betas.into();
        }
    }

    fn reference(&self, input: &KatzCentralityInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [_, predecessors] = neighbours(nodes, edges, input.directed);
        let mut scores = vec![0.0; nodes];
        let (mut difference, mut iterations) = (f64::INFINITY, 0);
        while iterations < input.max_iterations && difference >= nodes as f64 * input.tolerance {
            let sum = |node: usize| predecessors[node].iter().map(|&from| scores[from]).sum::<f64>();
            let next: Vec<f64> = (0..nodes).map(|node| input.alpha * sum(node) + input.beta(node)).collect();
            difference = next.iter().zip(&scores).map(|(next, score): (&f64, &f64)| (next - score).abs()).sum();
            scores = next;
            iterations += 1;
        }
        let largest = scores.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
        let norm = scores.iter().fold(0.0_f64, |norm, score| norm.hypot(*score));
        let scale = if input.normalized && norm > 0.0 { norm } else { 1.0 };
        let scores = scores.iter().map(|&score| (score / scale, 1e-12 * largest / scale)).collect();
        vec![
            Expected { name: "scores", values: scores },
            Expected { name: "iterations", values: vec![(iterations.into(), 0.0)] },
            Expected { name: "difference", values: vec![(difference, 1e-12 * nodes as f64 * largest)] },
        ]
    }

    fn values(&self, output: &KatzCentralityOutput) -> Vec<Vec<f64>> {
        vec![output.scores.to_vec(), vec![output.iterations.into()], vec![output.difference]]
    }
}
