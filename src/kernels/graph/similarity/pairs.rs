//! The scores of given pairs of nodes.

use rayon::prelude::*;

use super::measure::{Measure, Sum};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::intersect::for_each_common;
use crate::service::{KernelError, RunContext};

/// Pairs that one task scores.
const PAIRS_PER_TASK: usize = 64;

/// Returns the score of each pair.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn scores<S: Sum>(
    graph: &CsrGraph,
    pairs: &[[u32; 2]],
    measure: Measure,
    context: &RunContext<'_>,
) -> Result<Vec<f64>, KernelError> {
    let mut scores = vec![0.0; pairs.len()];
    let tasks = scores.par_chunks_mut(PAIRS_PER_TASK).zip(pairs.par_chunks(PAIRS_PER_TASK));
    tasks.try_for_each(|(scores, pairs)| {
        let mut cancel_check = CancelCheck::new(context);
        for (score, &pair) in scores.iter_mut().zip(pairs) {
            let mut sum = S::default();
            let rows = pair.map(|node| graph.successors().row(node));
            for_each_common(rows, &mut cancel_check, |node| sum += S::of_neighbor(graph.successors().degree(node)))?;
            *score = measure.score(sum.value(), rows.map(<[u32]>::len));
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(scores)
}
