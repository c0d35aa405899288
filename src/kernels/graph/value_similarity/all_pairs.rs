//! Comparison of given pairs, and the search of all pairs, on the CPU.

use rayon::prelude::*;

use super::Metric;
use super::rows::Rows;
use super::selection::{Candidate, Selection, SharedBound};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::service::{KernelError, RunContext};

/// Given pairs that one task compares.
const PAIRS_PER_TASK: usize = 64;
/// Rows that a task compares with all later rows, and the later rows that it takes at a time, so that both stay in a
/// cache.
const TILE: usize = 32;

/// Which of all pairs are returned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) min_similarity: f64,
    pub(super) max_pairs: usize,
}

/// Compares pairs of rows; returns them in their order.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn compare(
    rows: &Rows,
    metric: Metric,
    pairs: &[[u32; 2]],
    context: &RunContext<'_>,
) -> Result<Vec<Candidate>, KernelError> {
    let mut compared = vec![Candidate { distance: 0.0, nodes: [0; 2] }; pairs.len()];
    let tasks = compared.par_chunks_mut(PAIRS_PER_TASK).zip(pairs.par_chunks(PAIRS_PER_TASK));
    tasks.try_for_each(|(compared, pairs)| {
        let mut cancel_check = CancelCheck::new(context);
        for (compared, &nodes) in compared.iter_mut().zip(pairs) {
            let [a, b] = nodes.map(|node| rows.row(node as usize));
            *compared = Candidate { distance: metric.distance(a, b, &mut cancel_check)?, nodes };
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(compared)
}

/// Compares all pairs of rows.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn search(
    rows: &Rows,
    metric: Metric,
    wanted: Wanted,
    context: &RunContext<'_>,
) -> Result<Selection, KernelError> {
    let bound = SharedBound::new();
    let empty = || Selection::new(wanted.max_pairs);
    let search_tile = |mut selection: Selection, tile: usize| {
        let mut cancel_check = CancelCheck::new(context);
        let first = tile * TILE;
        let own = first..rows.count().min(first + TILE);
        for others in (first..rows.count()).step_by(TILE) {
            let end = rows.count().min(others + TILE);
            for a in own.clone() {
                for b in others.max(a + 1)..end {
                    cancel_check.spend(1)?;
                    let distance = metric.distance(rows.row(a), rows.row(b), &mut cancel_check)?;
                    if metric.similarity(distance) >= wanted.min_similarity {
                        selection.add(Candidate { distance, nodes: [a as u32, b as u32] }, &bound);
                    }
                }
            }
        }
        Ok::<_, KernelError>(selection)
    };
    let tiles = (0..rows.count().div_ceil(TILE)).into_par_iter();
    tiles.try_fold(empty, search_tile).try_reduce(empty, |a, b| Ok(a.merge(b)))
}
