//! Degrees of all nodes, and a parallel loop over nodes.

use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::cancel_check::{CancelCheck, INTERVAL};
use super::csr::{Adjacency, CsrGraph, Direction};
use crate::service::{KernelError, RunContext};

/// Nodes that a thread takes at a time.
const NODES_PER_TASK: usize = 1 << 12;

/// Computes a value for each node in parallel, in a short time that is about the same for every node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn map_nodes<T: Copy + Default + Send>(
    num_nodes: usize,
    context: &RunContext<'_>,
    of: impl Fn(u32) -> T + Sync,
) -> Result<Vec<T>, KernelError> {
    try_map_nodes(num_nodes, context, |node, _| Ok(of(node)))
}

/// Computes a value for each node in parallel. `of` tells the [`CancelCheck`] how much work a node is.
///
/// # Errors
/// Those of `of` and of [`RunContext::check`].
pub(super) fn try_map_nodes<T: Copy + Default + Send>(
    num_nodes: usize,
    context: &RunContext<'_>,
    of: impl Fn(u32, &mut CancelCheck<'_>) -> Result<T, KernelError> + Sync,
) -> Result<Vec<T>, KernelError> {
    let mut values = vec![T::default(); num_nodes];
    values.par_chunks_mut(NODES_PER_TASK).enumerate().try_for_each(|(task, values)| {
        let mut cancel_check = CancelCheck::new(context);
        let first = (task * NODES_PER_TASK) as u32;
        for (value, node) in values.iter_mut().zip(first..) {
            cancel_check.spend(1)?;
            *value = of(node, &mut cancel_check)?;
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(values)
}

/// Returns how many successors each node has.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn out_degrees(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    degrees(graph.successors(), context)
}

/// Returns how many predecessors each node has. Where the predecessors have not been made, this counts them and does
/// not make them.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn in_degrees(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    match (graph.direction(), graph.made_predecessors()) {
        (Direction::Undirected, _) => out_degrees(graph, context),
        (Direction::Directed, Some(predecessors)) => degrees(predecessors, context),
        (Direction::Directed, None) => count_columns(graph, context),
    }
}

fn degrees(adjacency: &Adjacency, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let offsets = adjacency.row_offsets();
    map_nodes(offsets.len() - 1, context, |node| offsets[node as usize + 1] - offsets[node as usize])
}

fn count_columns(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let counts: Vec<AtomicU32> = (0..graph.num_nodes()).map(|_| AtomicU32::new(0)).collect();
    graph.successors().column_indices().par_chunks(INTERVAL).try_for_each(|columns| {
        context.check()?;
        for &column in columns {
            counts[column as usize].fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(counts.into_iter().map(AtomicU32::into_inner).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predecessors_are_counted_whether_or_not_they_are_made() {
        let context = RunContext::detached();
        let edges = [[0, 1], [0, 2], [1, 2], [3, 2], [2, 0]];
        let graph = CsrGraph::from_edges(5, &edges, Direction::Directed).unwrap();
        let successors = graph.successors().to_buffers();
        let stored =
            CsrGraph::from_buffers_while(&successors[0], &successors[1], None, Direction::Directed, &mut |_| {
                Ok::<_, KernelError>(())
            });
        let stored = stored.unwrap();
        assert!(stored.made_predecessors().is_none() && graph.made_predecessors().is_some());
        for graph in [&graph, &stored] {
            assert_eq!(in_degrees(graph, &context).unwrap(), [1, 1, 3, 0, 0]);
            assert_eq!(out_degrees(graph, &context).unwrap(), [2, 1, 1, 1, 0]);
        }
        let both = CsrGraph::from_edges(5, &edges, Direction::Undirected).unwrap();
        assert_eq!(in_degrees(&both, &context).unwrap(), [2, 2, 3, 1, 0]);
    }
}
