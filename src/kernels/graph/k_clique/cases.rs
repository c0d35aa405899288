//! The test's inputs, and a search that extends cliques node by node as the reference.

use super::{KClique, KCliqueInput, KCliqueOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

/// The most cliques that the test lists.
const LIMIT: u32 = 20;

impl Cases for KClique {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<KCliqueInput> {
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // A clique without some edges.
        let clique = nodes.min(90) as u32;
        let pairs = (0..clique).flat_map(|node| (0..node).map(move |other| [other, node]));
        edges.extend(pairs.filter(|_| random.below(4) > 0));
        let (k, directed) = (3 + random.below(3) as u32, random.below(2) == 1);
        // The list is compared by its properties, in tests/kernels.
        Some(KCliqueInput { k, limit: LIMIT, directed, ..KCliqueInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut KCliqueInput, _: &KCliqueInput) {}

    fn put_nan(&self, _: &mut KCliqueInput, _: usize) {}

    fn reference(&self, input: &KCliqueInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let all: Vec<usize> = (0..nodes).collect();
        let count = cliques(&neighbours, &all, input.k);
        let listed = count.min(LIMIT.into()) * u64::from(input.k);
        vec![
            Expected { name: "count", values: vec![(count as f64, 0.0)] },
            Expected { name: "the length of cliques", values: vec![(listed as f64, 0.0)] },
        ]
    }

    fn values(&self, output: &KCliqueOutput) -> Vec<Vec<f64>> {
        vec![vec![output.count as f64], vec![output.cliques.len() as f64]]
    }
}

/// The number of cliques of `size` nodes among the candidates.
fn cliques(neighbours: &[Vec<usize>], candidates: &[usize], size: u32) -> u64 {
    if size == 1 {
        return candidates.len() as u64;
    }
    let from = |&node: &usize| {
        let is_next = |other: &&usize| **other > node && neighbours[node].binary_search(other).is_ok();
        let next: Vec<usize> = candidates.iter().filter(is_next).copied().collect();
        cliques(neighbours, &next, size - 1)
    };
    candidates.iter().map(from).sum()
}
