//! Greedy colouring in the order of the nodes, in parallel.
//!
//! A node has the lowest colour that no neighbour before it has: what a loop over the nodes in their order assigns. Nodes
//! whose neighbours before them have colours are coloured at the same time: Jones and Plassmann, *A parallel graph
//! coloring heuristic* (1993).

use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::Adjacency;
use crate::kernels::graph::degree::try_map_nodes;
use crate::kernels::graph::node_chunks::map_chunks;
use crate::kernels::graph::node_order::NodeOrder;
use crate::kernels::graph::node_ranges::into_values;
use crate::service::{KernelError, RunContext};

/// The nodes of each colour, in ascending order.
pub(super) struct ColorClasses {
    nodes: Vec<u32>,
    /// Where the nodes of each colour end.
    ends: Vec<usize>,
}

impl ColorClasses {
    /// Colours the nodes of an undirected graph.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(graph: &Adjacency, order: NodeOrder, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let colors = colors(graph, order, context)?;
        let num_colors = colors.iter().max().map_or(0, |&last| last as usize + 1);
        let mut cancel_check = CancelCheck::new(context);
        let mut ends = vec![0; num_colors];
        for &color in &colors {
            cancel_check.spend(1)?;
            ends[color as usize] += 1;
        }
        let mut next = Vec::with_capacity(num_colors);
        let mut before = 0;
        for end in &mut ends {
            next.push(before);
            before += *end;
            *end = before;
        }
        let mut nodes = vec![0; colors.len()];
        for (node, &color) in (0..).zip(&colors) {
            cancel_check.spend(1)?;
            nodes[next[color as usize]] = node;
            next[color as usize] += 1;
        }
        Ok(Self { nodes, ends })
    }

    /// Returns the nodes of each colour, the lowest colour first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.nodes[begin..end])
    }
}

fn colors(graph: &Adjacency, order: NodeOrder, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let num_nodes = graph.row_offsets().len() - 1;
    let waits_for = try_map_nodes(num_nodes, context, |node, cancel_check| {
        let row = graph.row(node);
        cancel_check.spend(row.len())?;
        let key = order.key(node);
        Ok(row.iter().filter(|&&other| order.key(other) < key).count() as u32)
    })?;
    let mut ready: Vec<u32> = (0..).zip(&waits_for).filter(|&(_, &count)| count == 0).map(|(node, _)| node).collect();
    let waits_for: Vec<AtomicU32> = waits_for.into_iter().map(AtomicU32::new).collect();
    let colors: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default).take(num_nodes).collect();
    while !ready.is_empty() {
        let next = map_chunks(graph.row_offsets(), &ready, context, |nodes, cancel_check| {
            let mut next = Vec::new();
            let mut is_used = Vec::new();
            for &node in nodes {
                let row = graph.row(node);
                cancel_check.spend(2 * row.len())?;
                let key = order.key(node);
                is_used.clear();
                is_used.resize(row.len() + 1, false);
                for &other in row.iter().filter(|&&other| order.key(other) < key) {
                    let color = colors[other as usize].load(Ordering::Relaxed) as usize;
                    if let Some(is_used) = is_used.get_mut(color) {
                        *is_used = true;
                    }
                }
                let color = is_used.iter().position(|&is_used| !is_used).expect("more colours than neighbours");
                colors[node as usize].store(color as u32, Ordering::Relaxed);
                for &other in row.iter().filter(|&&other| order.key(other) > key) {
                    if waits_for[other as usize].fetch_sub(1, Ordering::Relaxed) == 1 {
                        next.push(other);
                    }
                }
            }
            Ok(next)
        })?;
        ready = next.concat();
    }
    Ok(into_values(colors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;
    use crate::kernels::graph::cases::clustered_edges;
    use crate::kernels::graph::csr::{CsrGraph, Direction};

    #[test]
    fn colors_are_those_of_a_loop_over_the_nodes_in_order() {
        let mut random = Random::new(2);
        for nodes in [1, 2, 50, 5_000] {
            let edges = clustered_edges(nodes, &mut random);
            let graph = CsrGraph::from_edges(nodes, &edges, Direction::Undirected).unwrap();
            let order = NodeOrder { seed: nodes as u64 };
            let mut nodes_in_order: Vec<u32> = (0..nodes as u32).collect();
            nodes_in_order.sort_unstable_by_key(|&node| order.key(node));
            let mut expected = vec![u32::MAX; nodes];
            for node in nodes_in_order {
                let taken: Vec<u32> =
                    graph.successors().row(node).iter().map(|&other| expected[other as usize]).collect();
                expected[node as usize] = (0..).find(|color| !taken.contains(color)).unwrap();
            }
            let classes = ColorClasses::new(graph.successors(), order, &RunContext::detached()).unwrap();
            let mut colors = vec![u32::MAX; nodes];
            for (color, class) in (0..).zip(classes.iter()) {
                assert!(class.is_sorted());
                class.iter().for_each(|&node| colors[node as usize] = color);
            }
            assert_eq!(colors, expected);
        }
    }
}
