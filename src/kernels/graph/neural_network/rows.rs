//! What a layer does with its rows, and their distribution over threads.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::service::{KernelError, RunContext};

/// Added to the variance of a row, so that rows of equal numbers are not divided by 0.
pub(in crate::kernels::graph) const EPSILON: f32 = 1e-5;

/// What follows from the sums of a row: bias, normalization and activation, in this order.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels::graph) struct RowEpilogue<'a> {
    pub(in crate::kernels::graph) bias: Option<&'a [f32]>,
    pub(in crate::kernels::graph) normalize: bool,
    pub(in crate::kernels::graph) activation: Activation,
}

impl RowEpilogue<'_> {
    /// Applies it to a row.
    pub(in crate::kernels::graph) fn apply(&self, row: &mut [f32]) {
        if let Some(bias) = self.bias {
            row.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
        }
        if self.normalize {
            normalize(row);
        }
        self.activation.apply(row);
    }
}

/// Subtracts the mean from each number and divides it by the standard deviation: Ba, Kiros and Hinton, *Layer
/// normalization* (2016), without gain and bias.
fn normalize(row: &mut [f32]) {
    let len = row.len() as f32;
    let mean = row.iter().sum::<f32>() / len;
    row.iter_mut().for_each(|number| *number -= mean);
    let variance = row.iter().map(|number| number * number).sum::<f32>() / len;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    row.iter_mut().for_each(|number| *number *= scale);
}

/// Splits an array into parts of these lengths, which follow each other.
pub(in crate::kernels::graph) fn split<T>(mut array: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    let next = |length| {
        let (part, rest) = std::mem::take(&mut array).split_at_mut(length);
        array = rest;
        part
    };
    lengths.map(next).collect()
}

/// Calls `of` with each of these ranges of rows, which follow each other, and their part of `out`, on the rayon pool.
///
/// # Errors
/// Those of `of`.
pub(in crate::kernels::graph) fn for_each_part(
    parts: &[Range<usize>],
    out: &mut [f32],
    width: usize,
    context: &RunContext<'_>,
    of: impl Fn(Range<usize>, &mut [f32], &mut CancelCheck<'_>) -> Result<(), KernelError> + Sync,
) -> Result<(), KernelError> {
    let out = split(out, parts.iter().map(|rows| rows.len() * width));
    let run = |(rows, part): (&Range<usize>, &mut [f32])| of(rows.clone(), part, &mut CancelCheck::new(context));
    parts.par_iter().zip(out).try_for_each(run)
}
