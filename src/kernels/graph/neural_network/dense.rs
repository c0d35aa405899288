//! The product of dense matrices in single precision, in parallel over rows and with vector instructions.
//!
//! The second matrix is packed into panels of as many columns as two vector registers have lanes. A task takes some rows
//! of the first one; for a range of the common dimension whose part of a panel stays in the first cache, it goes through
//! all its rows with that part, [`MICRO_ROWS`] at a time, whose sums stay in registers (Goto and van de Geijn, *Anatomy
//! of high-performance matrix multiplication*, 2008). Products are added up in order, so an element has the same bits
//! whatever else is computed.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::graph::cancel_check::CancelCheck;
use crate::service::{KernelError, RunContext};

/// Rows whose sums are in registers.
const MICRO_ROWS: usize = 6;
/// Rows that a task takes.
pub(in crate::kernels::graph) const TASK_ROWS: usize = 16 * MICRO_ROWS;
/// The common dimension of a part of a panel.
const DEPTH: usize = 256;
/// Multiplications that take as long as the visit of an arc.
const PRODUCTS_PER_UNIT: usize = 32;

/// A matrix `[depth, columns]` in panels.
pub(in crate::kernels::graph) struct PackedMatrix {
    depth: usize,
    columns: usize,
    /// Columns of a panel; those after the last of the matrix are 0.
    width: usize,
    panels: Vec<f32>,
}

impl PackedMatrix {
    /// Packs a matrix whose rows are one after the other.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(in crate::kernels::graph) fn new(
        matrix: &[f32],
        columns: usize,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let (depth, width) = (matrix.len() / columns, Arch::new().dispatch(PanelWidth));
        let mut panels = vec![0.0; columns.div_ceil(width) * depth * width];
        let mut cancel_check = CancelCheck::new(context);
        for (panel, packed) in panels.chunks_exact_mut(depth * width).enumerate() {
            let first = panel * width;
            let used = width.min(columns - first);
            for (packed, row) in packed.chunks_exact_mut(width).zip(matrix.chunks_exact(columns)) {
                cancel_check.spend(1)?;
                packed[..used].copy_from_slice(&row[first..first + used]);
            }
        }
        Ok(Self { depth, columns, width, panels })
    }

    /// Writes the product of rows with this matrix to rows of `out`, in the calling thread.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(in crate::kernels::graph) fn multiply_rows(
        &self,
        rows: &[f32],
        out: &mut [f32],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        Arch::new().dispatch(MultiplyRows { matrix: self, rows, out, cancel_check })
    }

    /// Writes the product of all rows with this matrix to `out`, and calls `finish` with each row of it.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(in crate::kernels::graph) fn multiply(
        &self,
        rows: &[f32],
        out: &mut [f32],
        context: &RunContext<'_>,
        finish: impl Fn(&mut [f32]) + Sync,
    ) -> Result<(), KernelError> {
        let tasks = rows.par_chunks(TASK_ROWS * self.depth).zip(out.par_chunks_mut(TASK_ROWS * self.columns));
        tasks.try_for_each(|(rows, out)| {
            let mut cancel_check = CancelCheck::new(context);
            self.multiply_rows(rows, out, &mut cancel_check)?;
            out.chunks_exact_mut(self.columns).for_each(&finish);
            Ok(())
        })
    }
}

/// The number of columns of a panel for this processor.
struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

struct MultiplyRows<'a, 'c> {
    matrix: &'a PackedMatrix,
    rows: &'a [f32],
    out: &'a mut [f32],
    cancel_check: &'a mut CancelCheck<'c>,
}

impl WithSimd for MultiplyRows<'_, '_> {
    type Output = Result<(), KernelError>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<(), KernelError> {
        let PackedMatrix { depth, columns, width, ref panels } = *self.matrix;
        let num_rows = self.out.len() / columns;
        for first_depth in (0..depth).step_by(DEPTH) {
            let last_depth = depth.min(first_depth + DEPTH);
            for (panel, packed) in panels.chunks_exact(depth * width).enumerate() {
                let packed: &[[S::f32s; 2]] = bytemuck::cast_slice(&packed[first_depth * width..last_depth * width]);
                self.cancel_check.spend(num_rows * packed.len() * width / PRODUCTS_PER_UNIT)?;
                let first_column = panel * width;
                let used = width.min(columns - first_column);
                for first_row in (0..num_rows).step_by(MICRO_ROWS) {
                    let count = MICRO_ROWS.min(num_rows - first_row);
                    // Rows after the last are those of the last, whose sums are not stored.
                    let row = |index: usize| (first_row + index.min(count - 1)) * depth;
                    let factors: [&[f32]; MICRO_ROWS] =
                        std::array::from_fn(|index| &self.rows[row(index) + first_depth..row(index) + last_depth]);
                    let out = &mut self.out[first_row * columns..];
                    let mut sums = [[simd.splat_f32s(0.0); 2]; MICRO_ROWS];
                    if first_depth > 0 {
                        for (sums, out) in sums.iter_mut().zip(out.chunks(columns)).take(count) {
                            numbers_of::<S>(sums)[..used].copy_from_slice(&out[first_column..first_column + used]);
                        }
                    }
                    add_products(simd, factors, packed, &mut sums);
                    for (sums, out) in sums.iter_mut().zip(out.chunks_mut(columns)).take(count) {
                        out[first_column..first_column + used].copy_from_slice(&numbers_of::<S>(sums)[..used]);
                    }
                }
            }
        }
        Ok(())
    }
}

fn numbers_of<S: Simd>(registers: &mut [S::f32s; 2]) -> &mut [f32] {
    bytemuck::cast_slice_mut(registers)
}

/// Adds the products of rows with a part of a panel to sums.
#[inline(always)]
fn add_products<S: Simd>(
    simd: S,
    rows: [&[f32]; MICRO_ROWS],
    panel: &[[S::f32s; 2]],
    sums: &mut [[S::f32s; 2]; MICRO_ROWS],
) {
    // The same length for all, so that the loop has no checks.
    let rows = rows.map(|row| &row[..panel.len()]);
    let mut registers = *sums;
    for (index, &[first, second]) in panel.iter().enumerate() {
        for (registers, row) in registers.iter_mut().zip(&rows) {
            let factor = simd.splat_f32s(row[index]);
            registers[0] = simd.mul_add_e_f32s(factor, first, registers[0]);
            registers[1] = simd.mul_add_e_f32s(factor, second, registers[1]);
        }
    }
    *sums = registers;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn products_are_those_of_the_definition() {
        let mut random = Random::new(1);
        for (rows, depth, columns) in
            [(1, 1, 1), (6, 256, 16), (7, 257, 33), (97, 300, 5), (200, 3, 70), (96, 513, 32), (5, 64, 1)]
        {
            let mut numbers = |len: usize| (0..len).map(|_| random.between(-1.0, 1.0) as f32).collect::<Vec<_>>();
            let (a, b) = (numbers(rows * depth), numbers(depth * columns));
            let mut out = vec![f32::NAN; rows * columns];
            let context = RunContext::detached();
            let packed = PackedMatrix::new(&b, columns, &context).unwrap();
            packed.multiply(&a, &mut out, &context, |row| row.iter_mut().for_each(|number| *number += 1.0)).unwrap();
            for (row, out) in out.chunks(columns).enumerate() {
                for (column, &found) in out.iter().enumerate() {
                    let product =
                        |index: usize| f64::from(a[row * depth + index]) * f64::from(b[index * columns + column]);
                    let expected: f64 = 1.0 + (0..depth).map(product).sum::<f64>();
                    let error = (f64::from(found) - expected).abs();
                    assert!(
                        error < 1e-6 * depth as f64,
                        "{rows} x {depth} x {columns}, [{row}, {column}]: off by {error}"
                    );
                }
            }
        }
    }
}
