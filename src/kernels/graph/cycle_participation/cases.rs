//! The test's inputs, and a search along all paths of up to four nodes as the reference.

use super::{CycleParticipation, CycleParticipationInput, CycleParticipationOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for CycleParticipation {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<CycleParticipationInput> {
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // Arcs in both directions, some of them with their opposites, among few nodes, and to some hubs.
        let dense = nodes.min(25) as u64;
        edges.extend((0..6 * dense).map(|_| [random.below(dense) as u32, random.below(dense) as u32]));
        edges.extend((1..nodes as u32).map(|node| if node % 2 == 0 { [node, node % 3] } else { [node % 3, node] }));
        let directed = random.below(2) == 1;
        Some(CycleParticipationInput { directed, ..CycleParticipationInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut CycleParticipationInput, _: &CycleParticipationInput) {}

    fn put_nan(&self, _: &mut CycleParticipationInput, _: usize) {}

    fn reference(&self, input: &CycleParticipationInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, _] = neighbours(nodes, edges, input.directed);
        let mut counts = [2, 3, 4].map(|_| vec![0.0; nodes]);
        // Each undirected cycle is walked in both directions.
        let once = if input.directed { 1.0 } else { 0.5 };
        for start in 0..nodes {
            walk(&mut vec![start], &successors, &mut |cycle| {
                if cycle.len() > 2 || input.directed {
                    cycle.iter().for_each(|&node| counts[cycle.len() - 2][node] += once);
                }
            });
        }
        let totals = [2.0, 3.0, 4.0].into_iter().zip(&counts).map(|(len, counts)| counts.iter().sum::<f64>() / len);
        let totals = totals.map(|total| (total, 0.0)).collect();
        let columns = ["two_cycles", "three_cycles", "four_cycles"].into_iter().zip(&counts);
        let columns =
            columns.map(|(name, counts)| Expected { name, values: counts.iter().map(|&count| (count, 0.0)).collect() });
        columns.chain([Expected { name: "totals", values: totals }]).collect()
    }

    fn values(&self, output: &CycleParticipationOutput) -> Vec<Vec<f64>> {
        let totals = [output.total_two_cycles, output.total_three_cycles, output.total_four_cycles];
        let column = |counts: &[u64]| counts.iter().map(|&count| count as f64).collect::<Vec<_>>();
        let columns = [&output.two_cycles, &output.three_cycles, &output.four_cycles].map(|counts| column(counts));
        columns.into_iter().chain([column(&totals)]).collect()
    }
}

/// Extends a path along the arcs, and calls `found` with each cycle of at most four nodes whose lowest node is its first.
fn walk(path: &mut Vec<usize>, successors: &[Vec<usize>], found: &mut impl FnMut(&[usize])) {
    for &next in &successors[path[path.len() - 1]] {
        if next == path[0] && path.len() > 1 {
            found(path);
        }
        if next > path[0] && path.len() < 4 && !path.contains(&next) {
            path.push(next);
            walk(path, successors, found);
            path.pop();
        }
    }
}
