//! Probabilities and predictions from the rows of the last layer, on the CPU.

use rayon::prelude::*;

use super::{GnnInferenceInput, GnnInferenceOutput};
use crate::service::{KernelError, RunContext};

/// Numbers that a task takes.
const TASK: usize = 1 << 14;

/// Returns the output with these embeddings.
pub(super) fn of_rows(
    input: &GnnInferenceInput,
    rows: Vec<f32>,
    context: &RunContext<'_>,
) -> Result<GnnInferenceOutput, KernelError> {
    let width = input.layer_sizes.last().map_or(1, |&width| width as usize);
    let rows_per_task = TASK.div_ceil(width);
    let mut probabilities = Vec::new();
    if input.return_probabilities {
        probabilities = vec![0.0; rows.len()];
        let tasks = rows.par_chunks(rows_per_task * width).zip(probabilities.par_chunks_mut(rows_per_task * width));
        tasks.try_for_each(|(rows, out)| {
            context.check()?;
            rows.chunks_exact(width).zip(out.chunks_exact_mut(width)).for_each(|(row, out)| softmax(row, out));
            Ok::<_, KernelError>(())
        })?;
    }
    let mut predictions = Vec::new();
    if input.return_predictions {
        predictions = vec![0; rows.len() / width];
        let tasks = rows.par_chunks(rows_per_task * width).zip(predictions.par_chunks_mut(rows_per_task));
        tasks.try_for_each(|(rows, out)| {
            context.check()?;
            rows.chunks_exact(width).zip(out).for_each(|(row, out)| *out = index_of_largest(row));
            Ok::<_, KernelError>(())
        })?;
    }
    Ok(GnnInferenceOutput {
        embeddings: rows.into(),
        probabilities: probabilities.into(),
        predictions: predictions.into(),
    })
}

fn softmax(row: &[f32], out: &mut [f32]) {
    let most = row[index_of_largest(row) as usize];
    out.iter_mut().zip(row).for_each(|(out, number)| *out = (number - most).exp());
    let scale = 1.0 / out.iter().sum::<f32>();
    out.iter_mut().for_each(|out| *out *= scale);
}

/// The index of the first of the largest numbers. NaN is larger than any other.
fn index_of_largest(row: &[f32]) -> u32 {
    let mut index = 0;
    for (other, number) in row.iter().enumerate().skip(1) {
        let most = row[index];
        if *number > most || (number.is_nan() && !most.is_nan()) {
            index = other;
        }
    }
    index as u32
}
