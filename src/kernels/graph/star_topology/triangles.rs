//! Triangles at each node of a graph whose edges count without direction.
//!
//! The forward algorithm of Schank and Wagner, *Finding, counting and listing all triangles in large graphs* (2005):
//! each edge is kept at its end of lower degree only, so that no node keeps more than the square root of twice the
//! edges, and a triangle is found once, as a common entry of the lists of its two lower ends.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::degree::try_map_nodes;
use crate::service::{KernelError, RunContext};

/// Nodes whose triangles one task counts.
const NODES_PER_TASK: usize = 256;

/// A graph whose edges lead from the end of lower degree to that of higher degree, or of higher number among equals.
#[derive(Debug)]
pub struct OrientedGraph {
    /// How many neighbours each node has in the graph without directions.
    degrees: Vec<u32>,
    offsets: Vec<usize>,
    columns: Vec<u32>,
}

impl OrientedGraph {
    /// Orients the edges of a graph whose predecessors are [made](CsrGraph::make_predecessors).
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn new(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let (successors, predecessors) = (graph.successors(), graph.predecessors());
        let num_nodes = graph.num_nodes();
        let both = |node| neighbours(successors, predecessors, node);
        let degrees = try_map_nodes(num_nodes, context, |node, cancel_check| {
            cancel_check.spend(successors.degree(node))?;
            Ok(both(node).count() as u32)
        })?;
        let rank = |node: u32| (degrees[node as usize], node);
        let forward = |node: u32| both(node).filter(move |&other| rank(other) > rank(node));
        let lengths = try_map_nodes(num_nodes, context, |node, cancel_check| {
            cancel_check.spend(degrees[node as usize] as usize)?;
            Ok(forward(node).count())
        })?;
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        }));
        let mut columns = Vec::with_capacity(offsets[num_nodes]);
        let mut cancel_check = CancelCheck::new(context);
        for node in 0..num_nodes as u32 {
            cancel_check.spend(degrees[node as usize] as usize + 1)?;
            columns.extend(forward(node));
        }
        Ok(Self { degrees, offsets, columns })
    }

    /// Returns how many triangles each node is a corner of.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn triangles(&self, context: &RunContext<'_>) -> Result<Vec<u64>, KernelError> {
        let num_nodes = self.degrees.len();
        let counts: Vec<AtomicU64> = (0..num_nodes).map(|_| AtomicU64::new(0)).collect();
        (0..num_nodes.div_ceil(NODES_PER_TASK)).into_par_iter().try_for_each(|task| {
            let mut cancel_check = CancelCheck::new(context);
            let first = task * NODES_PER_TASK;
            for node in first..num_nodes.min(first + NODES_PER_TASK) {
                self.count_at(node, &counts, &mut cancel_check)?;
            }
            Ok::<_, KernelError>(())
        })?;
        Ok(counts.into_iter().map(AtomicU64::into_inner).collect())
    }

    /// Counts the triangles of which `node` is the lowest corner, for each of their corners.
    fn count_at(
        &self,
        node: usize,
        counts: &[AtomicU64],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let row = self.row(node);
        let mut of_node = 0;
        for &middle in row {
            let other_row = self.row(middle as usize);
            cancel_check.spend(row.len() + other_row.len())?;
            let mut of_middle = 0;
            for_each_common(row, other_row, |top| {
                of_middle += 1;
                counts[top as usize].fetch_add(1, Ordering::Relaxed);
            });
            if of_middle > 0 {
                counts[middle as usize].fetch_add(of_middle, Ordering::Relaxed);
                of_node += of_middle;
            }
        }
        counts[node].fetch_add(of_node, Ordering::Relaxed);
        Ok(())
    }

    fn row(&self, node: usize) -> &[u32] {
        &self.columns[self.offsets[node]..self.offsets[node + 1]]
    }

    /// Returns how many neighbours each node has in the graph without directions.
    pub fn into_degrees(self) -> Vec<u32> {
        self.degrees
    }
}

/// The host memory of orienting a graph and counting its triangles, beyond the outputs.
pub(super) fn memory(nodes: u64, arcs: u64, is_directed: bool) -> u64 {
    let predecessors = if is_directed { nodes.saturating_add(arcs).saturating_mul(4) } else { 0 };
    let oriented = nodes.saturating_mul(16).saturating_add(arcs.saturating_mul(4));
    predecessors.saturating_add(oriented)
}

/// The neighbours of a node in either direction, ascending, each once.
fn neighbours(successors: &Adjacency, predecessors: &Adjacency, node: u32) -> impl Iterator<Item = u32> {
    let outward = successors.row(node);
    // An undirected graph has the same rows for both.
    let inward = if std::ptr::eq(successors, predecessors) { &[][..] } else { predecessors.row(node) };
    let (mut outward, mut inward) = (outward.iter().copied().peekable(), inward.iter().copied().peekable());
    std::iter::from_fn(move || match (outward.peek().copied(), inward.peek().copied()) {
        (Some(a), Some(b)) if a == b => {
            inward.next();
            outward.next()
        }
        (Some(a), Some(b)) if b < a => inward.next(),
        (Some(_), _) => outward.next(),
        (None, _) => inward.next(),
    })
}

/// Calls `found` with each number that is in both ascending lists.
fn for_each_common(a: &[u32], b: &[u32], mut found: impl FnMut(u32)) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        if x == y {
            found(x);
        }
        // Without branches, as none could be predicted.
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
}
