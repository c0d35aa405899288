//! [`Rows`]: the histograms in the form that distances are computed from, and their checks.

use rayon::prelude::*;

use super::{Metric, ValueSimilarityInput};
use crate::service::{Buffer, FloatArray, InvalidInput, KernelError, RunContext};

/// Values that a thread prepares between two checks of the context, at least.
const VALUES_PER_TASK: usize = 1 << 15;

/// Rows of equal width, one for each histogram.
///
/// For the Jensen-Shannon distance a row is the histogram divided by its sum. For the Wasserstein distance it is the
/// cumulative distribution at the end of each bin but the last, times the way from the middle of the bin to that of the
/// next, so that the distance of two is the sum of the absolute differences of their rows.
#[derive(Debug)]
pub(super) struct Rows {
    values: Vec<f64>,
    /// Those of the values, for the Jensen-Shannon distance; see [`logarithm`].
    logarithms: Vec<f64>,
    width: usize,
    count: usize,
}

/// A row, and the logarithms of its values for the Jensen-Shannon distance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) values: &'a [f64],
    pub(super) logarithms: &'a [f64],
}

/// The logarithm of a share; 0 for that of 0, by which it is multiplied.
pub(super) fn logarithm(share: f64) -> f64 {
    if share > 0.0 { share.ln() } else { 0.0 }
}

impl Rows {
    /// Prepares the rows of an input that is valid.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(input: &ValueSimilarityInput, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let (count, bins) = (input.num_distributions as usize, input.num_bins());
        let values = match (&input.distributions, input.metric) {
            (FloatArray::One(value), _) => vec![*value],
            (FloatArray::F32(values), Metric::Jsd) => map_rows(values, bins, bins, context, normalize)?,
            (FloatArray::F64(values), Metric::Jsd) => map_rows(values, bins, bins, context, normalize)?,
            (FloatArray::F32(values), Metric::Wasserstein) => {
                let ways = ways(input.bin_edges.as_ref(), bins);
                map_rows(values, bins, bins - 1, context, |from, to| accumulate(from, &ways, to))?
            }
            (FloatArray::F64(values), Metric::Wasserstein) => {
                let ways = ways(input.bin_edges.as_ref(), bins);
                map_rows(values, bins, bins - 1, context, |from, to| accumulate(from, &ways, to))?
            }
        };
        let width = match input.metric {
            Metric::Jsd => bins,
            Metric::Wasserstein => bins - 1,
        };
        Ok(Self { values, logarithms: Vec::new(), width, count })
    }

    /// Adds the logarithms, which the CPU code for the Jensen-Shannon distance needs.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn with_logarithms(mut self, metric: Metric, context: &RunContext<'_>) -> Result<Self, KernelError> {
        if metric == Metric::Jsd {
            let of_row = |values: &[f64], logarithms: &mut [f64]| {
                logarithms.iter_mut().zip(values).for_each(|(to, &value)| *to = logarithm(value));
            };
            self.logarithms = map_rows(&self.values, self.width, self.width, context, of_row)?;
        }
        Ok(self)
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The length of a row. It is 0 for the Wasserstein distance of a single bin.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// All rows, one after the other.
    #[cfg(feature = "cuda")]
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let range = row * self.width..(row + 1) * self.width;
        // There are none for the Wasserstein distance.
        let logarithms = self.logarithms.get(range.clone()).unwrap_or(&[]);
        Row { values: &self.values[range], logarithms }
    }
}

/// Maps each row of `bins` values to one of `width`.
fn map_rows<T: Copy + Into<f64> + Sync>(
    values: &[T],
    bins: usize,
    width: usize,
    context: &RunContext<'_>,
    map: impl Fn(&[T], &mut [f64]) + Sync,
) -> Result<Vec<f64>, KernelError> {
    let mut rows = vec![0.0; values.len() / bins * width];
    if width == 0 {
        return Ok(rows);
    }
    let rows_per_task = VALUES_PER_TASK.div_ceil(bins);
    let tasks = rows.par_chunks_mut(rows_per_task * width).zip(values.par_chunks(rows_per_task * bins));
    tasks.try_for_each(|(rows, values)| {
        context.check()?;
        rows.chunks_mut(width).zip(values.chunks(bins)).for_each(|(row, values)| map(values, row));
        Ok::<_, KernelError>(())
    })?;
    Ok(rows)
}

fn sum<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    values.iter().map(|&value| -> f64 { value.into() }).sum()
}

fn normalize<T: Copy + Into<f64>>(histogram: &[T], row: &mut [f64]) {
    let sum = sum(histogram);
    row.iter_mut().zip(histogram).for_each(|(share, &value)| *share = value.into() / sum);
}

fn accumulate<T: Copy + Into<f64>>(histogram: &[T], ways: &[f64], row: &mut [f64]) {
    let sum = sum(histogram);
    let mut before = 0.0;
    for ((entry, &value), way) in row.iter_mut().zip(histogram).zip(ways) {
        before += value.into();
        *entry = before / sum * way;
    }
}

/// The ways from the middle of each bin to that of the next.
fn ways(edges: Option<&Buffer<f64>>, bins: usize) -> Vec<f64> {
    match edges {
        Some(edges) => edges.windows(3).map(|edges| 0.5 * (edges[2] - edges[0])).collect(),
        None => vec![1.0; bins - 1],
    }
}

/// Checks the histograms and the edges.
///
/// # Errors
/// The first field that is wrong.
pub(super) fn validate(input: &ValueSimilarityInput) -> Result<(), InvalidInput> {
    let invalid = |field: &str, reason: String| Err(InvalidInput::new(field, reason));
    let count = input.num_distributions as usize;
    if count == 0 {
        return invalid("num_distributions", "0, and 1 is the least".to_owned());
    }
    let Some(len) = input.distributions.array_len() else {
        return invalid("distributions", "a number, and an array is needed".to_owned());
    };
    if len == 0 || !len.is_multiple_of(count) {
        let reason = format!("{count}, and distributions has {len} values, not as many for each and at least one");
        return invalid("num_distributions", reason);
    }
    let bins = len / count;
    match &input.distributions {
        FloatArray::One(_) => {}
        FloatArray::F32(values) => check_histograms(values, bins)?,
        FloatArray::F64(values) => check_histograms(values, bins)?,
    }
    let Some(edges) = &input.bin_edges else { return Ok(()) };
    if input.metric != Metric::Wasserstein {
        return invalid("bin_edges", "given, and only the metric wasserstein has them".to_owned());
    }
    if edges.len() != bins + 1 {
        return invalid("bin_edges", format!("{} values, and {bins} bins have {} edges", edges.len(), bins + 1));
    }
    if let Some(index) = edges.iter().position(|edge| !edge.is_finite()) {
        return invalid(&format!("bin_edges[{index}]"), format!("{}, and it is a finite number", edges[index]));
    }
    if let Some(index) = edges.windows(2).position(|edges| edges[0] >= edges[1]) {
        let reason = format!("{}, and it is more than the {} before it", edges[index + 1], edges[index]);
        return invalid(&format!("bin_edges[{}]", index + 1), reason);
    }
    if !(edges[bins] - edges[0]).is_finite() {
        return invalid("bin_edges", "they are farther apart than the largest f64".to_owned());
    }
    Ok(())
}

fn check_histograms<T: Copy + Into<f64> + Sync>(values: &[T], bins: usize) -> Result<(), InvalidInput> {
    let is_invalid = |value: T| {
        let value = value.into();
        !(value.is_finite() && value >= 0.0)
    };
    if let Some(index) = values.iter().position(|&value| is_invalid(value)) {
        let value: f64 = values[index].into();
        let reason = format!("{value}, and it is finite and not negative");
        return Err(InvalidInput::new(format!("distributions[{index}]"), reason));
    }
    for (row, histogram) in values.chunks(bins).enumerate() {
        let sum = sum(histogram);
        // Less than the smallest normal number has too few bits to divide by.
        if !(sum >= f64::MIN_POSITIVE && sum.is_finite()) {
            let reason = format!("histogram {row} adds up to {sum}, and a positive number is needed");
            return Err(InvalidInput::new("distributions", reason));
        }
    }
    Ok(())
}
