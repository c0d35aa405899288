//! Enumerates cliques in the out-neighbourhood of each node of an oriented graph.
//!
//! The lowest node of a clique has all others as successors. So for each node the subgraph between its successors is
//! made, as a matrix of bits, and cliques of one node less are searched in it: the candidates that extend a clique are
//! the successors of all its nodes, which is the intersection of rows of the matrix.

use rayon::prelude::*;

use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::Adjacency;
use crate::kernels::graph::intersect::for_each_common;
use crate::service::{KernelError, RunContext};

/// Nodes of which one task counts the cliques.
const NODES_PER_TASK: usize = 16;
/// The bits of a word.
const BITS: usize = u64::BITS as usize;

/// Returns the scratch memory: that of each thread. A node has at most the square root of `arcs` successors, if an
/// undirected edge is two arcs, and that of twice as many otherwise.
pub(in crate::kernels::graph) fn scratch(arcs: u64) -> u64 {
    (rayon::current_num_threads() as u64).saturating_mul(arcs / 4 + 4096)
}

/// Returns the number of cliques of `k` nodes, 3 or more.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(in crate::kernels::graph) fn count(
    arcs: &Adjacency,
    k: usize,
    context: &RunContext<'_>,
) -> Result<u64, KernelError> {
    let num_nodes = arcs.row_offsets().len() - 1;
    let tasks = (0..num_nodes.div_ceil(NODES_PER_TASK)).into_par_iter();
    let counts = tasks.map_init(Neighbourhood::default, |neighbourhood, task| {
        let mut cancel_check = CancelCheck::new(context);
        let mut count = 0;
        let first = task * NODES_PER_TASK;
        for node in first..num_nodes.min(first + NODES_PER_TASK) {
            if neighbourhood.fill(arcs, node as u32, k, &mut cancel_check)? {
                count += neighbourhood.count(k - 1, &mut cancel_check)?;
            }
        }
        Ok::<u64, KernelError>(count)
    });
    counts.try_reduce(|| 0, |a, b| Ok(a + b))
}

/// Returns the nodes of the first `limit` cliques of `k` nodes, in the order of their lowest nodes in the oriented
/// graph.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn list(
    arcs: &Adjacency,
    k: usize,
    limit: usize,
    context: &RunContext<'_>,
) -> Result<Vec<u32>, KernelError> {
    let num_nodes = arcs.row_offsets().len() as u32 - 1;
    let mut listing = Listing { cliques: Vec::new(), clique: Vec::with_capacity(k), limit: limit * k };
    let mut neighbourhood = Neighbourhood::default();
    let mut cancel_check = CancelCheck::new(context);
    for node in 0..num_nodes {
        if listing.is_full() {
            break;
        }
        if neighbourhood.fill(arcs, node, k, &mut cancel_check)? {
            listing.clique.push(node);
            neighbourhood.list(k - 1, arcs.row(node), &mut listing, &mut cancel_check)?;
            listing.clique.pop();
        }
    }
    Ok(listing.cliques)
}

/// The cliques that have been found, and the one that is being searched.
struct Listing {
    cliques: Vec<u32>,
    clique: Vec<u32>,
    /// The most elements of `cliques`.
    limit: usize,
}

impl Listing {
    fn is_full(&self) -> bool {
        self.cliques.len() >= self.limit
    }

    /// Adds the clique with `last` as a further node.
    fn add(&mut self, last: u32) {
        let start = self.cliques.len();
        self.cliques.extend(self.clique.iter().copied().chain([last]));
        self.cliques[start..].sort_unstable();
    }
}

/// The subgraph between the successors of a node. They are numbered by their position in its row.
#[derive(Default)]
struct Neighbourhood {
    /// The words of a set of these nodes.
    words: usize,
    /// For each node the set of those that are its successors too.
    rows: Vec<u64>,
    /// The candidates at each depth of the search.
    candidates: Vec<Vec<u64>>,
}

impl Neighbourhood {
    /// Makes the subgraph of a node. Returns false if it has too few successors to be the lowest of a clique of `k`.
    fn fill(
        &mut self,
        arcs: &Adjacency,
        node: u32,
        k: usize,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<bool, KernelError> {
        let row = arcs.row(node);
        cancel_check.spend(1)?;
        if row.len() < k - 1 {
            return Ok(false);
        }
        self.words = row.len().div_ceil(BITS);
        self.rows.clear();
        self.rows.resize(row.len() * self.words, 0);
        cancel_check.spend(self.rows.len())?;
        for (index, &successor) in row.iter().enumerate() {
            let bits = &mut self.rows[index * self.words..][..self.words];
            let mut position = 0;
            for_each_common([row, arcs.row(successor)], cancel_check, |common| {
                // They ascend, so that the search goes on from the last.
                position += row[position..].partition_point(|&other| other < common);
                bits[position / BITS] |= 1 << (position % BITS);
            })?;
        }
        self.candidates.resize(k, Vec::new());
        let all = &mut self.candidates[k - 1];
        all.clear();
        all.resize(self.words, u64::MAX);
        if !row.len().is_multiple_of(BITS) {
            all[self.words - 1] = (1 << (row.len() % BITS)) - 1;
        }
        Ok(true)
    }

    /// Returns the number of cliques of `size` nodes, 2 or more, among the candidates of this depth.
    fn count(&mut self, size: usize, cancel_check: &mut CancelCheck<'_>) -> Result<u64, KernelError> {
        let mut count = 0;
        for word in 0..self.words {
            let mut bits = self.candidates[size][word];
            while bits != 0 {
                let node = word * BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                cancel_check.spend(self.words)?;
                if size == 2 {
                    let both = self.candidates[size].iter().zip(self.row(node)).map(|(a, b)| (a & b).count_ones());
                    count += u64::from(both.sum::<u32>());
                } else if self.intersect(size, node) {
                    count += self.count(size - 1, cancel_check)?;
                }
            }
        }
        Ok(count)
    }

    /// Lists the cliques of `size` nodes among the candidates of this depth, added to the nodes that the listing has.
    fn list(
        &mut self,
        size: usize,
        successors: &[u32],
        listing: &mut Listing,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        for word in 0..self.words {
            let mut bits = self.candidates[size][word];
            while bits != 0 && !listing.is_full() {
                let node = word * BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                cancel_check.spend(self.words)?;
                if size == 1 {
                    listing.add(successors[node]);
                } else if self.intersect(size, node) {
                    listing.clique.push(successors[node]);
                    self.list(size - 1, successors, listing, cancel_check)?;
                    listing.clique.pop();
                }
            }
        }
        Ok(())
    }

    /// Makes the candidates of the next depth: those that are successors of a candidate. Returns whether they are
    /// enough.
    fn intersect(&mut self, size: usize, node: usize) -> bool {
        let (below, here) = self.candidates.split_at_mut(size);
        let row = &self.rows[node * self.words..][..self.words];
        let next = &mut below[size - 1];
        next.clear();
        next.extend(here[0].iter().zip(row).map(|(a, b)| a & b));
        let count: u32 = next.iter().map(|word| word.count_ones()).sum();
        count as usize >= size - 1
    }

    fn row(&self, node: usize) -> &[u64] {
        &self.rows[node * self.words..][..self.words]
    }
}
