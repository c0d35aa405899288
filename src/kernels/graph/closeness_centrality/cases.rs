//! The test's inputs, and a search towards each node as the reference.

use super::{ClosenessCentrality, ClosenessInput, ClosenessOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{distances_from, neighbours, random_edges};

impl Cases for ClosenessCentrality {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ClosenessInput> {
        if nodes > 1_100 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        if random.below(2) == 1 {
            // A hub, whose row a whole block reads, and a path.
            edges.extend((0..nodes as u32).map(|node| [0, node]));
        } else {
            edges.extend((1..nodes.min(60) as u32).map(|node| [node - 1, node]));
        }
        let (directed, wf_improved) = (random.below(2) == 1, random.below(2) == 1);
        let mut input = ClosenessInput { directed, wf_improved, ..ClosenessInput::from_edges(nodes as u64, edges) };
        match random.below(4) {
            0 => input.nodes = Some((0..nodes as u32).rev().step_by(7).collect::<Vec<_>>().into()),
            1 => input.samples = Some(1 + random.below(nodes as u64)),
            2 => input.sources = Some((0..nodes as u32).step_by(3).collect::<Vec<_>>().into()),
            _ => {}
        }
        Some(input)
    }

    fn share(&self, input: &mut ClosenessInput, with: &ClosenessInput) {
        *input = with.clone();
        // Another request on the same graph.
        (input.samples, input.sources, input.nodes) = (None, None, Some(vec![0].into()));
    }

    fn put_nan(&self, _: &mut ClosenessInput, _: usize) {}

    fn reference(&self, input: &ClosenessInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [_, predecessors] = neighbours(nodes, edges, input.directed);
        let sources = input.sources_input().choose(nodes);
        let score = |node: u32| {
            let distances = distances_from(&predecessors, node as usize);
            let others = sources.iter().filter(|&&source| source != node);
            let found: Vec<usize> = others.clone().filter_map(|&source| distances[source as usize]).collect();
            if found.is_empty() {
                return (0.0, 0.0);
            }
            let reached = found.len() as f64;
            let score = reached / found.iter().sum::<usize>() as f64;
            let score = if input.wf_improved { score * reached / others.count() as f64 } else { score };
            (score, 1e-15)
        };
        let all = (0..nodes as u32).collect::<Vec<_>>().into();
        let scored = input.nodes.as_ref().unwrap_or(&all);
        vec![Expected { name: "scores", values: scored.iter().map(|&node| score(node)).collect() }]
    }

    fn values(&self, output: &ClosenessOutput) -> Vec<Vec<f64>> {
        vec![output.scores.to_vec()]
    }
}
