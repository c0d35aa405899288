//! Sums over the predecessors of every node, in parallel: the sparse matrix-vector product of power iterations.

use std::ops::Range;

use rayon::prelude::*;

use super::cancel_check::{CancelCheck, INTERVAL};
use super::csr::Adjacency;
use crate::service::{KernelError, RunContext};

/// Rows and arcs of a part: some tens of microseconds of work.
const PART: u64 = 1 << 14;

/// Splits the rows of an adjacency into ranges of about the same number of rows and arcs. They depend on the graph
/// alone, so that sums by part have the same bits on any number of threads.
pub(super) fn row_parts(adjacency: &Adjacency) -> Vec<Range<usize>> {
    let offsets = adjacency.row_offsets();
    let rows = offsets.len() - 1;
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows {
        let items_before = |row: usize| row as u64 + u64::from(offsets[row]);
        let end_item = items_before(start) + PART;
        let (mut low, mut high) = (start + 1, rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if items_before(middle) < end_item { low = middle + 1 } else { high = middle }
        }
        parts.push(start..low);
        start = low;
    }
    parts
}

/// What follows from the sum of a node.
pub(super) struct NodeUpdate {
    /// The new value of the node.
    pub(super) value: f64,
    /// What the node contributes to the sums of its successors in the next iteration.
    pub(super) contribution: f64,
    /// Two numbers that are added up over all nodes.
    pub(super) sums: [f64; 2],
}

/// Vectors of an iteration, with an element for each node.
pub(super) struct Vectors<'a> {
    /// What each node contributes to its successors.
    pub(super) from: &'a [f64],
    /// The values of the nodes, which are replaced.
    pub(super) values: &'a mut [f64],
    /// What each node will contribute in the next iteration.
    pub(super) to: &'a mut [f64],
}

/// Calls `update` with each node, the sum of the contributions of its predecessors, and its value. Returns the totals
/// of the numbers that it returns, which have the same bits on any number of threads.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn iterate(
    predecessors: &Adjacency,
    parts: &[Range<usize>],
    vectors: Vectors<'_>,
    context: &RunContext<'_>,
    update: impl Fn(usize, f64, f64) -> NodeUpdate + Sync,
) -> Result<[f64; 2], KernelError> {
    let from = vectors.from;
    let sum =
        |node: usize, cancel_check: &mut CancelCheck<'_>| sum_row(predecessors.row(node as u32), from, cancel_check);
    update_nodes(parts, vectors, context, sum, update)
}

/// Calls `update` with each node, its contribution in `from`, and its value. Returns totals as [`iterate`] does.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn update_each(
    parts: &[Range<usize>],
    vectors: Vectors<'_>,
    context: &RunContext<'_>,
    update: impl Fn(usize, f64, f64) -> NodeUpdate + Sync,
) -> Result<[f64; 2], KernelError> {
    let from = vectors.from;
    let contribution = |node: usize, cancel_check: &mut CancelCheck<'_>| {
        cancel_check.spend(1)?;
        Ok(from[node])
    };
    update_nodes(parts, vectors, context, contribution, update)
}

fn update_nodes(
    parts: &[Range<usize>],
    vectors: Vectors<'_>,
    context: &RunContext<'_>,
    input: impl Fn(usize, &mut CancelCheck<'_>) -> Result<f64, KernelError> + Sync,
    update: impl Fn(usize, f64, f64) -> NodeUpdate + Sync,
) -> Result<[f64; 2], KernelError> {
    let Vectors { mut values, mut to, .. } = vectors;
    let mut tasks = Vec::with_capacity(parts.len());
    for rows in parts {
        let (part_values, rest_values) = values.split_at_mut(rows.len());
        let (part_to, rest_to) = to.split_at_mut(rows.len());
        tasks.push((rows.clone(), part_values, part_to));
        (values, to) = (rest_values, rest_to);
    }
    let totals = tasks.into_par_iter().map(|(rows, values, to)| {
        let mut cancel_check = CancelCheck::new(context);
        let mut total = [0.0; 2];
        for (node, (value, to)) in rows.zip(values.iter_mut().zip(to)) {
            let updated = update(node, input(node, &mut cancel_check)?, *value);
            (*value, *to) = (updated.value, updated.contribution);
            total = add(total, updated.sums);
        }
        Ok(total)
    });
    let totals = totals.collect::<Result<Vec<_>, KernelError>>()?;
    Ok(totals.into_iter().fold([0.0; 2], add))
}

fn sum_row(row: &[u32], from: &[f64], cancel_check: &mut CancelCheck<'_>) -> Result<f64, KernelError> {
    let mut sum = 0.0;
    for piece in row.chunks(INTERVAL) {
        cancel_check.spend(piece.len())?;
        // Four sums, so that an addition does not wait for the one before it.
        let (quads, rest) = piece.as_chunks::<4>();
        let mut sums = [0.0; 4];
        for quad in quads {
            for (sum, &node) in sums.iter_mut().zip(quad) {
                *sum += from[node as usize];
            }
        }
        let rest: f64 = rest.iter().map(|&node| from[node as usize]).sum();
        sum += (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest;
    }
    Ok(sum)
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::{CsrGraph, Direction};

    #[test]
    fn parts_cover_all_rows_once_and_are_bounded() {
        let star: Vec<[u32; 2]> = (1..100_000).map(|node| [node, 0]).collect();
        let chain: Vec<[u32; 2]> = (1..100_000).map(|node| [node - 1, node]).collect();
        for edges in [star, chain, Vec::new()] {
            let nodes = if edges.is_empty() { 7 } else { 100_000 };
            let graph = CsrGraph::from_edges(nodes, &edges, Direction::Directed).unwrap();
            let parts = row_parts(graph.predecessors());
            let rows: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert!(rows.into_iter().eq(0..nodes));
            for rows in &parts {
                let arcs = |row: usize| graph.predecessors().degree(row as u32) as u64;
                let last = rows.end - 1;
                assert!((rows.start..last).map(arcs).sum::<u64>() + rows.len() as u64 <= PART, "{rows:?}");
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_predecessors() {
        let edges = [[0, 2], [1, 2], [2, 0], [3, 2], [4, 2], [5, 2], [3, 0]];
        let graph = CsrGraph::from_edges(6, &edges, Direction::Directed).unwrap();
        let from = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let (mut values, mut to) = ([10.0; 6], [0.0; 6]);
        let vectors = Vectors { from: &from, values: &mut values, to: &mut to };
        let parts = row_parts(graph.predecessors());
        let totals = iterate(graph.predecessors(), &parts, vectors, &RunContext::detached(), |node, sum, value| {
            NodeUpdate { value: sum, contribution: value + node as f64, sums: [sum, 1.0] }
        });
        assert_eq!(totals.unwrap(), [71.0, 6.0]);
        assert_eq!(values, [12.0, 0.0, 59.0, 0.0, 0.0, 0.0]);
        assert_eq!(to, [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);

        let vectors = Vectors { from: &from, values: &mut values, to: &mut to };
        let totals = update_each(&parts, vectors, &RunContext::detached(), |node, contribution, value| NodeUpdate {
            value: -value,
            contribution: contribution + node as f64,
            sums: [contribution, value],
        });
        assert_eq!(totals.unwrap(), [63.0, 71.0]);
        assert_eq!(values, [-12.0, -0.0, -59.0, -0.0, -0.0, -0.0]);
        assert_eq!(to, [1.0, 3.0, 6.0, 11.0, 20.0, 37.0]);
    }
}
