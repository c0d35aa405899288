//! [`Book`]: the profit and loss of a scenario as a function of independent normal numbers.

use super::MonteCarloVarInput;
use crate::service::{InvalidInput, KernelError, RunContext};

/// A bound of the normal numbers that are drawn.
const LARGEST_NORMAL: f64 = 6.8;

/// The profit and loss `constant + sum of (linear[i] z[i] + square[i] z[i]^2)`, with independent standard normal `z`.
///
/// Positions are linear in the correlated returns `r = m + S z`, with `S` the scaled Cholesky factor, or quadratic
/// where they have gammas. The quadratic form `S' G S` is rotated onto its eigenvectors, which leaves `z` independent
/// and normal (Glasserman, Heidelberger and Shahabuddin, *Variance reduction techniques for estimating value-at-risk*,
/// 2000), so a scenario of `d` factors takes `d` operations and not `d^2`.
#[derive(Debug, Clone)]
pub(super) struct Book {
    pub(super) constant: f64,
    pub(super) linear: Vec<f64>,
    pub(super) square: Vec<f64>,
}

impl Book {
    /// The book of a valid input.
    ///
    /// # Errors
    /// Losses that single precision cannot hold; those of [`RunContext::check`].
    pub(super) fn new(input: &MonteCarloVarInput, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let book = Self::of_moments(input, context)?;
        let factors = book.linear.iter().zip(&book.square);
        let sizes = factors.map(|(linear, square)| LARGEST_NORMAL * (linear.abs() + LARGEST_NORMAL * square.abs()));
        let largest_loss = book.constant.abs() + sizes.sum::<f64>();
        if largest_loss.is_nan() || largest_loss > f64::from(f32::MAX) {
            let reason = format!("losses of up to {largest_loss:e}, which single precision cannot hold");
            return Err(InvalidInput::new("values", reason).into());
        }
        Ok(book)
    }

    fn of_moments(input: &MonteCarloVarInput, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let factors = input.values.len();
        let periods = f64::from(input.holding_period);
        let mean: Vec<f64> = match &input.expected_returns {
            Some(returns) => returns.iter().map(|value| value * periods).collect(),
            None => vec![0.0; factors],
        };
        let gamma = |index: usize| input.gammas.as_ref().map_or(0.0, |gammas| gammas[index]);
        let mut constant = 0.0;
        let mut delta = Vec::with_capacity(factors);
        for (index, (&value, mean)) in input.values.iter().zip(&mean).enumerate() {
            constant += mean * (value + 0.5 * gamma(index) * mean);
            delta.push(value + gamma(index) * mean);
        }
        // Row by row: S = sqrt(periods) D L.
        let scaled = |row: usize, column: usize| {
            let entry = match &input.cholesky {
                Some(cholesky) => cholesky[row * factors + column],
                None => f64::from(u8::from(row == column)),
            };
            entry * input.volatilities[row] * periods.sqrt()
        };
        let mut linear = vec![0.0; factors];
        for (row, delta) in delta.iter().enumerate() {
            if row % 64 == 0 {
                context.check()?;
            }
            for (column, sum) in linear.iter_mut().enumerate().take(row + 1) {
                *sum += delta * scaled(row, column);
            }
        }
        if input.gammas.is_none() {
            return Ok(Self { constant, linear, square: vec![0.0; factors] });
        }
        let mut form = vec![vec![0.0; factors]; factors];
        for row in 0..factors {
            context.check()?;
            let entries: Vec<f64> = (0..=row).map(|column| scaled(row, column)).collect();
            for (i, left) in entries.iter().enumerate() {
                for (k, right) in entries.iter().enumerate() {
                    form[i][k] += 0.5 * gamma(row) * left * right;
                }
            }
        }
        rotate(&mut form, &mut linear, context)?;
        let square = form.iter().enumerate().map(|(index, row)| row[index]).collect();
        Ok(Self { constant, linear, square })
    }
}

impl Book {
    /// The mean of the losses.
    pub(super) fn expected_loss(&self) -> f64 {
        -(self.constant + self.square.iter().sum::<f64>())
    }
}

/// Diagonalizes a symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, *Matrix computations*, 8.5), and
/// rotates a vector with it.
fn rotate(form: &mut [Vec<f64>], vector: &mut [f64], context: &RunContext<'_>) -> Result<(), KernelError> {
    const MOST_SWEEPS: usize = 30;
    let size = form.len();
    let norm: f64 = form.iter().flatten().map(|entry| entry * entry).sum();
    for _ in 0..MOST_SWEEPS {
        let off: f64 = (0..size).flat_map(|row| form[row][..row].iter()).map(|entry| entry * entry).sum();
        if off <= 1e-28 * norm {
            break;
        }
        for p in 0..size {
            context.check()?;
            for q in p + 1..size {
                let entry = form[p][q];
                if entry == 0.0 {
                    continue;
                }
                let theta = (form[q][q] - form[p][p]) / (2.0 * entry);
                let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                let sine = tangent * cosine;
                let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);
                for row in form.iter_mut() {
                    (row[p], row[q]) = turn(row[p], row[q]);
                }
                let (before, after) = form.split_at_mut(q);
                for (a, b) in before[p].iter_mut().zip(&mut after[0]) {
                    (*a, *b) = turn(*a, *b);
                }
                (vector[p], vector[q]) = turn(vector[p], vector[q]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::rotate;
    use crate::service::RunContext;

    #[test]
    fn a_rotation_keeps_what_does_not_depend_on_the_basis() {
        let size = 12;
        let entry = |row: usize, column: usize| f64::sin((row * column + row + column) as f64);
        let matrix: Vec<Vec<f64>> = (0..size).map(|row| (0..size).map(|column| entry(row, column)).collect()).collect();
        let vector: Vec<f64> = (0..size).map(|index| f64::cos(index as f64)).collect();
        // v' A v, the trace, the sum of squares, and the length of v.
        let invariants = |matrix: &[Vec<f64>], vector: &[f64]| {
            let form =
                |row: usize| (0..size).map(|column| matrix[row][column] * vector[column]).sum::<f64>() * vector[row];
            [
                (0..size).map(form).sum::<f64>(),
                (0..size).map(|index| matrix[index][index]).sum(),
                matrix.iter().flatten().map(|entry| entry * entry).sum(),
                vector.iter().map(|entry| entry * entry).sum(),
            ]
        };
        let (mut rotated, mut turned) = (matrix.clone(), vector.clone());
        rotate(&mut rotated, &mut turned, &RunContext::detached()).unwrap();
        for (before, after) in invariants(&matrix, &vector).into_iter().zip(invariants(&rotated, &turned)) {
            assert!((before - after).abs() < 1e-12 * (1.0 + before.abs()), "{before} {after}");
        }
        for (index, row) in rotated.iter().enumerate() {
            assert!(row[..index].iter().all(|entry| entry.abs() < 1e-12));
        }
    }
}
