//! A parallel loop over some nodes of a graph.

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use crate::service::{KernelError, RunContext};

/// Nodes and arcs of a chunk, on average: some tens of microseconds of work.
const CHUNK: usize = 1 << 13;

/// Calls `of` with chunks of the nodes, whose rows have these offsets, and a [`CancelCheck`] to tell how much work they are, and returns the results in
/// order. The chunks run on the rayon pool, unless they are so little work that waking it would take longer.
///
/// # Errors
/// Those of `of`.
pub(super) fn map_chunks<R: Send>(
    row_offsets: &[u32],
    nodes: &[u32],
    context: &RunContext<'_>,
    of: impl Fn(&[u32], &mut CancelCheck<'_>) -> Result<R, KernelError> + Sync,
) -> Result<Vec<R>, KernelError> {
    let degree = |&node: &u32| (row_offsets[node as usize + 1] - row_offsets[node as usize]) as usize;
    let work = nodes.len() + nodes.iter().map(degree).sum::<usize>();
    let map = |nodes: &[u32]| {
        let mut cancel_check = CancelCheck::new(context);
        cancel_check.spend(nodes.len())?;
        of(nodes, &mut cancel_check)
    };
    if work <= 2 * CHUNK {
        return Ok(vec![map(nodes)?]);
    }
    let nodes_per_chunk = (nodes.len() * CHUNK / work).max(1);
    nodes.par_chunks(nodes_per_chunk).map(map).collect()
}
