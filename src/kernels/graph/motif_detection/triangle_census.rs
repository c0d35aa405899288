//! Enumerates the triangles of a graph, for counts of each edge and by the directions of their arcs.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::triads::Dyad;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::node_ranges::into_values;
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{Buffer, KernelError, RunContext};

/// Nodes that a thread takes at a time.
const NODES_PER_TASK: usize = 64;
/// The number of combinations of three dyads.
pub(super) const COMBINATIONS: usize = Dyad::COUNT * Dyad::COUNT * Dyad::COUNT;

/// How many triangles there are.
pub(super) struct TriangleCensus {
    /// At each arc of the oriented graph.
    pub(super) of_arcs: Buffer<u32>,
    /// By the dyads of their three arcs in the oriented graph: from the lowest node to the middle one, from the lowest
    /// to the highest, and from the middle one to the highest. See [`combination`].
    pub(super) of_dyads: [u64; COMBINATIONS],
}

/// Returns the index of a combination of dyads.
pub(super) fn combination([low, long, high]: [Dyad; 3]) -> usize {
    (low as usize * Dyad::COUNT + long as usize) * Dyad::COUNT + high as usize
}

/// Returns the bytes that all threads take: the positions of nodes in a row.
pub(super) fn scratch(nodes: u64) -> u64 {
    nodes.saturating_mul(4 * rayon::current_num_threads() as u64)
}

/// Counts the triangles. `dyads` has that of each arc of the oriented graph.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn count(
    oriented: &OrientedGraph,
    dyads: Option<&[Dyad]>,
    context: &RunContext<'_>,
) -> Result<TriangleCensus, KernelError> {
    let (num_nodes, arcs) = (oriented.num_nodes(), oriented.arcs());
    let of_arcs: Vec<AtomicU32> = arcs.column_indices().iter().map(|_| AtomicU32::new(0)).collect();
    let next = AtomicUsize::new(0);
    let threads = rayon::current_num_threads().min(num_nodes.div_ceil(NODES_PER_TASK));
    let of_thread = |_| {
        let mut search = Search { oriented, dyads, of_arcs: &of_arcs, positions: vec![0; num_nodes] };
        let mut of_dyads = [0; COMBINATIONS];
        let mut cancel_check = CancelCheck::new(context);
        loop {
            let first = next.fetch_add(NODES_PER_TASK, Ordering::Relaxed);
            if first >= num_nodes {
                return Ok::<_, KernelError>(of_dyads);
            }
            for node in first..num_nodes.min(first + NODES_PER_TASK) {
                search.count_at(node as u32, &mut of_dyads, &mut cancel_check)?;
            }
        }
    };
    let sum = |mut counts: [u64; COMBINATIONS], others: [u64; COMBINATIONS]| {
        counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        Ok(counts)
    };
    let of_dyads = (0..threads).into_par_iter().map(of_thread).try_reduce(|| [0; COMBINATIONS], sum)?;

    Ok(TriangleCensus { of_arcs: into_values(of_arcs).into(), of_dyads })
}

/// The search of a thread.
struct Search<'a> {
    oriented: &'a OrientedGraph,
    dyads: Option<&'a [Dyad]>,
    of_arcs: &'a [AtomicU32],
    /// For the successors of the node that is searched at, one more than their position in its row; otherwise 0.
    positions: Vec<u32>,
}

impl Search<'_> {
    /// Counts the triangles of which `node` is the lowest.
    fn count_at(
        &mut self,
        node: u32,
        of_dyads: &mut [u64; COMBINATIONS],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let arcs = self.oriented.arcs();
        let row = arcs.row(node);
        cancel_check.spend(1 + row.len())?;
        if row.len() < 2 {
            return Ok(());
        }
        for (position, &other) in (1..).zip(row) {
            self.positions[other as usize] = position;
        }
        let first_arc = |node: u32| arcs.row_offsets()[node as usize] as usize;
        let start = first_arc(node);
        for (low_arc, &middle) in (start..).zip(row) {
            let middle_row = arcs.row(middle);
            cancel_check.spend(middle_row.len())?;
            let mut of_low = 0;
            for (high_arc, &high) in (first_arc(middle)..).zip(middle_row) {
                let position = self.positions[high as usize];
                if position == 0 {
                    continue;
                }
                let long_arc = start + position as usize - 1;
                of_low += 1;
                self.of_arcs[long_arc].fetch_add(1, Ordering::Relaxed);
                self.of_arcs[high_arc].fetch_add(1, Ordering::Relaxed);
                if let Some(dyads) = self.dyads {
                    of_dyads[combination([dyads[low_arc], dyads[long_arc], dyads[high_arc]])] += 1;
                }
            }
            if of_low > 0 {
                self.of_arcs[low_arc].fetch_add(of_low, Ordering::Relaxed);
            }
        }
        row.iter().for_each(|&other| self.positions[other as usize] = 0);
        Ok(())
    }
}
