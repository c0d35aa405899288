//! The test's inputs, and a search with a queue as the reference.

use super::{ShortestPath, ShortestPathInput, ShortestPathOutput, UNREACHABLE};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{distances_from, neighbours, random_edges};

impl Cases for ShortestPath {
    /// A sparse graph, a denser one with a hub, or a long path with its nodes mixed.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ShortestPathInput> {
        let mut edges = random_edges(nodes, random);
        match random.below(3) {
            0 => {
                let mut order: Vec<u32> = (0..nodes as u32).collect();
                (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
                edges = order.windows(2).map(|pair| [pair[0], pair[1]]).collect();
            }
            1 => {
                edges.extend(random_edges(nodes, random));
                edges.extend((0..nodes as u32).filter(|node| node % 3 == 0).map(|node| [0, node]));
            }
            _ => {}
        }
        let count = if nodes > 10_000 { 2 } else { 1 + random.below(40) };
        let sources = (0..count).map(|_| random.below(nodes as u64) as u32).collect::<Vec<_>>();
        let (directed, predecessors) = (random.below(2) == 1, random.below(4) > 0);
        let input = ShortestPathInput::from_edges(nodes as u64, edges);
        Some(ShortestPathInput { directed, predecessors, sources: sources.into(), ..input })
    }

    fn share(&self, _: &mut ShortestPathInput, _: &ShortestPathInput) {}

    fn put_nan(&self, _: &mut ShortestPathInput, _: usize) {}

    fn reference(&self, input: &ShortestPathInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, before] = neighbours(nodes, edges, input.directed);
        let (mut distances, mut predecessors) = (Vec::new(), Vec::new());
        for &source in input.sources.iter() {
            let distance: Vec<u32> = distances_from(&successors, source as usize)
                .into_iter()
                .map(|distance| distance.map_or(UNREACHABLE, |distance| distance as u32))
                .collect();
            let lowest = |node: usize| {
                let is_before =
                    |&other: &usize| distance[other] != UNREACHABLE && distance[other] + 1 == distance[node];
                before[node].iter().copied().find(is_before).map_or(UNREACHABLE, |other| other as u32)
            };
            if input.predecessors {
                predecessors.extend((0..nodes).map(lowest));
            }
            distances.extend(distance);
        }
        let exact = |values: Vec<u32>| values.into_iter().map(|value| (value.into(), 0.0)).collect();
        vec![
            Expected { name: "distances", values: exact(distances) },
            Expected { name: "predecessors", values: exact(predecessors) },
        ]
    }

    fn values(&self, output: &ShortestPathOutput) -> Vec<Vec<f64>> {
        let values = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![values(&output.distances), values(&output.predecessors)]
    }
}
