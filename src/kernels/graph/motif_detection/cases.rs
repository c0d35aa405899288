//! The test's inputs, and every set of three and four nodes looked at as the reference.

use super::{MotifDetection, MotifDetectionInput, MotifDetectionOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for MotifDetection {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<MotifDetectionInput> {
        if nodes > 40 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        let dense = nodes.min(14) as u64;
        edges.extend((0..5 * dense).map(|_| [random.below(dense) as u32, random.below(dense) as u32]));
        let directed = random.below(2) == 1;
        Some(MotifDetectionInput { directed, ..MotifDetectionInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut MotifDetectionInput, _: &MotifDetectionInput) {}

    fn put_nan(&self, _: &mut MotifDetectionInput, _: usize) {}

    fn reference(&self, input: &MotifDetectionInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let mut counts = [0.0; 8];
        for a in 0..nodes {
            for b in 0..a {
                for c in 0..b {
                    if let Some(class) = class(&[a, b, c], &neighbours) {
                        counts[class] += 1.0;
                    }
                    for d in 0..c {
                        if let Some(class) = class(&[a, b, c, d], &neighbours) {
                            counts[class] += 1.0;
                        }
                    }
                }
            }
        }
        vec![Expected { name: "counts", values: counts.map(|count| (count, 0.0)).to_vec() }]
    }

    fn values(&self, output: &MotifDetectionOutput) -> Vec<Vec<f64>> {
        let MotifDetectionOutput {
            path_3,
            triangle,
            path_4,
            star_4,
            cycle_4,
            tailed_triangle,
            diamond,
            clique_4,
            triads,
        } = output;
        let counts = [path_3, triangle, path_4, star_4, cycle_4, tailed_triangle, diamond, clique_4];
        // Each connected set of three nodes is one triad.
        let sum = triads.as_ref().map(|triads| triads.iter().sum::<u64>());
        assert!(sum.is_none_or(|sum| sum == path_3 + triangle), "{triads:?} of {path_3} and {triangle}");
        vec![counts.map(|&count| count as f64).to_vec()]
    }
}

/// The index of the count that a set of nodes belongs to; `None` if it is not connected. The degrees of its nodes tell.
fn class(nodes: &[usize], neighbours: &[Vec<usize>]) -> Option<usize> {
    let degree = |node: &usize| nodes.iter().filter(|other| neighbours[*node].binary_search(other).is_ok()).count();
    let mut degrees: Vec<usize> = nodes.iter().map(degree).collect();
    degrees.sort_unstable();
    match degrees[..] {
        [1, 1, 2] => Some(0),
        [2, 2, 2] => Some(1),
        [1, 1, 2, 2] => Some(2),
        [1, 1, 1, 3] => Some(3),
        [2, 2, 2, 2] => Some(4),
        [1, 2, 2, 3] => Some(5),
        [2, 2, 3, 3] => Some(6),
        [3, 3, 3, 3] => Some(7),
        _ => None,
    }
}
