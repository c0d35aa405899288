//! The test's inputs, and the definition with a dense loop over all edges as the reference.

use super::{PageRank, PageRankInput, PageRankOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for PageRank {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<PageRankInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // A hub, whose row is split over several chunks.
        edges.extend((0..nodes as u32).filter(|node| node % 3 == 0).map(|node| [node, 0]));
        let input = PageRankInput::from_edges(nodes as u64, edges);
        let input = PageRankInput { directed: random.below(2) == 1, tolerance: 1e-12 / nodes.max(1) as f64, ..input };
        let (max_iterations, damping) = (5 + random.below(30) as u32, random.between(0.5, 0.95));
        let input = PageRankInput { max_iterations, damping, ..input };
        let mut node = || random.below(nodes as u64) as u32;
        Some(match nodes {
            31 | 1_000 => {
                PageRankInput { seed_nodes: Some((0..11).map(|_| node()).collect::<Vec<_>>().into()), ..input }
            }
            32 | 33 => {
                let weights = |row: usize| (0..nodes).map(|node| ((node + row) % 5) as f64).collect::<Vec<_>>().into();
                PageRankInput { personalization: Some((0..3).map(weights).collect()), ..input }
            }
            _ => input,
        })
    }

    /// On the graph of the other, with options and seed nodes of its own.
    fn share(&self, input: &mut PageRankInput, with: &PageRankInput) {
        let PageRankInput { max_iterations, damping, .. } = *input;
        let seed_nodes = (max_iterations % 2 == 0).then(|| vec![max_iterations, 0].into());
        *input = PageRankInput { max_iterations, damping, seed_nodes, ..with.clone() };
    }

    fn put_nan(&self, _: &mut PageRankInput, _: usize) {}

    fn reference(&self, input: &PageRankInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, _] = neighbours(nodes, edges, input.directed);
        let rows: Vec<Vec<f64>> = match (&input.personalization, &input.seed_nodes) {
            (Some(rows), _) => rows.iter().map(|row| row.to_vec()).collect(),
            (_, Some(seeds)) => seeds.iter().map(|&seed| indicator(nodes, seed)).collect(),
            _ => vec![vec![1.0; nodes]],
        };
        let vectors: Vec<_> = rows.iter().map(|row| power_iteration(&successors, row, input)).collect();
        let exact = |number: f64| (number, 0.0);
        let scores =
            vectors.iter().flat_map(|(scores, _, _)| scores.iter().map(|&score| (score, 1e-9 * score + 1e-16)));
        vec![
            Expected { name: "scores", values: scores.collect() },
            Expected { name: "iterations", values: vectors.iter().map(|vector| exact(vector.1)).collect() },
            Expected { name: "differences", values: vectors.iter().map(|vector| (vector.2, 1e-12)).collect() },
        ]
    }

    fn values(&self, output: &PageRankOutput) -> Vec<Vec<f64>> {
        let iterations = output.iterations.iter().map(|&count| count.into()).collect();
        vec![output.scores.to_vec(), iterations, output.differences.to_vec()]
    }
}

fn indicator(nodes: usize, of: u32) -> Vec<f64> {
    (0..nodes as u32).map(|node| f64::from(u8::from(node == of))).collect()
}

/// Returns the scores, the iterations and the last difference.
fn power_iteration(successors: &[Vec<usize>], weights: &[f64], input: &PageRankInput) -> (Vec<f64>, f64, f64) {
    let nodes = successors.len();
    let sum: f64 = weights.iter().sum();
    let mut scores = vec![1.0 / nodes as f64; nodes];
    let mut difference = f64::INFINITY;
    for iteration in 1..=input.max_iterations {
        let mut next = vec![0.0; nodes];
        let mut dangling = 0.0;
        for (node, successors) in successors.iter().enumerate() {
            match successors.len() {
                0 => dangling += scores[node],
                degree => successors.iter().for_each(|&successor| next[successor] += scores[node] / degree as f64),
            }
        }
        for (next, weight) in next.iter_mut().zip(weights) {
            let weight = weight / sum;
            *next = input.damping * (*next + dangling * weight) + (1.0 - input.damping) * weight;
        }
        difference = next.iter().zip(&scores).map(|(next, score)| (next - score).abs()).sum();
        scores = next;
        if difference < nodes as f64 * input.tolerance {
            return (scores, iteration.into(), difference);
        }
    }
    (scores, input.max_iterations.into(), difference)
}
