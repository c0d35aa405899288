//! Parallel loops over ranges of nodes.

use std::ops::Range;
use std::sync::atomic::AtomicU32;

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use crate::service::{KernelError, RunContext};

/// Nodes of a range.
const NODES_PER_RANGE: usize = 1 << 12;

/// Calls `of` with each range of nodes and a [`CancelCheck`] to tell how much work they are, and returns the results in the
/// order of the ranges. Several ranges run on the rayon pool.
///
/// # Errors
/// Those of `of`.
pub(super) fn map_ranges<R: Send>(
    num_nodes: usize,
    context: &RunContext<'_>,
    of: impl Fn(Range<u32>, &mut CancelCheck<'_>) -> Result<R, KernelError> + Sync,
) -> Result<Vec<R>, KernelError> {
    let map = |range: usize| {
        let start = range * NODES_PER_RANGE;
        let end = num_nodes.min(start + NODES_PER_RANGE);
        let mut cancel_check = CancelCheck::new(context);
        cancel_check.spend(end - start)?;
        of(start as u32..end as u32, &mut cancel_check)
    };
    match num_nodes.div_ceil(NODES_PER_RANGE) {
        // Waking the pool would take longer than the work.
        1 => Ok(vec![map(0)?]),
        ranges => (0..ranges).into_par_iter().map(map).collect(),
    }
}

/// Calls `of` with each range of nodes, as [`map_ranges`] does.
///
/// # Errors
/// Those of `of`.
pub(super) fn for_each_range(
    num_nodes: usize,
    context: &RunContext<'_>,
    of: impl Fn(Range<u32>, &mut CancelCheck<'_>) -> Result<(), KernelError> + Sync,
) -> Result<(), KernelError> {
    map_ranges(num_nodes, context, of).map(drop)
}

/// Returns the values of an array that several threads have written.
pub(super) fn into_values(atomics: Vec<AtomicU32>) -> Vec<u32> {
    // In place: they have the same size.
    atomics.into_iter().map(AtomicU32::into_inner).collect()
}
