//! Sums over the predecessors of every node for several vectors side by side: the sparse matrix times a narrow dense one.
//!
//! An arc is read once for all vectors, and the contributions of a node lie together, so that a product with four vectors
//! takes about half of four times that with one, as long as the contributions fit into the caches.

use std::array::from_fn;
use std::ops::Range;

use rayon::prelude::*;

use super::cancel_check::{CancelCheck, INTERVAL};
use super::csr::Adjacency;
use crate::service::{KernelError, RunContext};

/// What follows from the sums of a node, in one of the vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElementUpdate {
    /// The new value of the node, which is what it contributes to the sums of its successors.
    pub(super) value: f64,
    /// Two numbers that are added up over all nodes.
    pub(super) sums: [f64; 2],
}

/// Calls `update` for each node and vector, with the number of each, the sum of the values of the node's predecessors, and
/// its own value; `from` has the values by node, and `to` gets the new ones. Returns the totals for each vector of the
/// numbers that `update` returns.
///
/// A vector has the same bits whatever the others are, and on any number of threads.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn iterate_together<const WIDTH: usize>(
    predecessors: &Adjacency,
    parts: &[Range<usize>],
    [from, to]: [&mut [[f64; WIDTH]]; 2],
    context: &RunContext<'_>,
    update: impl Fn(usize, usize, f64, f64) -> ElementUpdate + Sync,
) -> Result<[[f64; 2]; WIDTH], KernelError> {
    let from = &*from;
    let mut rest = to;
    let mut tasks = Vec::with_capacity(parts.len());
    for rows in parts {
        let (of_part, after) = rest.split_at_mut(rows.len());
        tasks.push((rows.clone(), of_part));
        rest = after;
    }
    let totals = tasks.into_par_iter().map(|(rows, to)| {
        let mut cancel_check = CancelCheck::new(context);
        let mut totals = [[0.0; 2]; WIDTH];
        for (node, to) in rows.zip(to) {
            let sums = sum_row(predecessors.row(node as u32), from, &mut cancel_check)?;
            let updates: [ElementUpdate; WIDTH] =
                from_fn(|vector| update(vector, node, sums[vector], from[node][vector]));
            *to = updates.map(|updated| updated.value);
            totals = add(totals, updates.map(|updated| updated.sums));
        }
        Ok(totals)
    });
    let totals = totals.collect::<Result<Vec<_>, KernelError>>()?;
    Ok(totals.into_iter().fold([[0.0; 2]; WIDTH], add))
}

fn sum_row<const WIDTH: usize>(
    row: &[u32],
    from: &[[f64; WIDTH]],
    cancel_check: &mut CancelCheck<'_>,
) -> Result<[f64; WIDTH], KernelError> {
    let mut sum = [0.0; WIDTH];
    for piece in row.chunks(INTERVAL) {
        cancel_check.spend(piece.len())?;
        // Four sums of each vector, so that an addition does not wait for the one before it.
        let (quads, rest) = piece.as_chunks::<4>();
        let mut sums = [[0.0; WIDTH]; 4];
        for quad in quads {
            for (sum, &node) in sums.iter_mut().zip(quad) {
                *sum = plus(*sum, from[node as usize]);
            }
        }
        let of_rest = rest.iter().fold([0.0; WIDTH], |sum, &node| plus(sum, from[node as usize]));
        let [a, b, c, d] = sums;
        sum = plus(sum, plus(plus(plus(a, b), plus(c, d)), of_rest));
    }
    Ok(sum)
}

fn plus<const WIDTH: usize>(a: [f64; WIDTH], b: [f64; WIDTH]) -> [f64; WIDTH] {
    from_fn(|vector| a[vector] + b[vector])
}

fn add<const WIDTH: usize>(a: [[f64; 2]; WIDTH], b: [[f64; 2]; WIDTH]) -> [[f64; 2]; WIDTH] {
    from_fn(|vector| plus(a[vector], b[vector]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::{CsrGraph, Direction};
    use crate::kernels::graph::spmv::row_parts;

    #[test]
    fn each_vector_has_the_sums_of_its_predecessors() {
        let edges = [[0, 2], [1, 2], [2, 0], [3, 2], [4, 2], [5, 2], [3, 0]];
        let graph = CsrGraph::from_edges(6, &edges, Direction::Directed).unwrap();
        let mut from: Vec<[f64; 3]> =
            (0..6).map(|node| [1.0, 10.0, -1.0].map(|by| by * f64::from(1 << node))).collect();
        let mut to = vec![[0.0; 3]; 6];
        let parts = row_parts(graph.predecessors());
        let update = |vector: usize, node: usize, sum: f64, old: f64| ElementUpdate {
            value: sum + old,
            sums: [sum, (vector + node) as f64],
        };
        let vectors = [&mut from[..], &mut to[..]];
        let totals = iterate_together(graph.predecessors(), &parts, vectors, &RunContext::detached(), update).unwrap();
        assert_eq!(totals, [[71.0, 15.0], [710.0, 21.0], [-71.0, 27.0]]);
        let expected = [13.0, 2.0, 63.0, 8.0, 16.0, 32.0];
        assert_eq!(to, expected.map(|value| [value, 10.0 * value, -value]));
    }
}
