//! Elementwise kernels on the CPU: the loop over blocks of rows, with SIMD and rayon.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::column::{BLOCK, Column};
use crate::service::{Buffer, Element, KernelError, RunContext};

/// The code of an elementwise kernel for [`BLOCK`] rows, where one row at a time is not fast enough.
///
/// Loops over a block without a branch or a call become vector code.
pub trait BlockFunction<C: Column, T, const N: usize>: Sync {
    /// Computes the `N` outputs of a block. `FUSED` says that the processor has a fused multiply-add instruction;
    /// without one, `mul_add` is a library call.
    fn run<const FUSED: bool>(&self, columns: C::Block<'_>, outputs: &mut [[T; BLOCK]; N]);
}

/// The code of an elementwise kernel for one row: from its values to its `N` outputs.
#[derive(Clone, Copy, Debug)]
pub struct RowFunction<F>(pub F);

impl<C, T, F, const N: usize> BlockFunction<C, T, N> for RowFunction<F>
where
    C: Column,
    T: Copy,
    F: Fn(C::Row) -> [T; N] + Sync,
{
    // Into the code that pulp compiles for the processor's vector instructions.
    #[inline(always)]
    fn run<const FUSED: bool>(&self, columns: C::Block<'_>, outputs: &mut [[T; BLOCK]; N]) {
        for index in 0..BLOCK {
            let row = (self.0)(C::row(columns, index));
            for (output, value) in outputs.iter_mut().zip(row) {
                output[index] = value;
            }
        }
    }
}

/// How the rows are split into tasks.
#[derive(Clone, Copy, Debug)]
pub struct Granularity {
    /// Rows of a task, after which the context is checked.
    chunk: usize,
    /// Rows from which on the tasks run on the rayon pool.
    parallel: usize,
}

impl Granularity {
    /// For rows of this many arithmetic operations. A task takes some tens of microseconds.
    pub const fn of_operations(operations: u64) -> Self {
        if operations < 10 {
            // Memory moves fewer rows faster than tasks are distributed.
            Self { chunk: 1 << 15, parallel: 1 << 17 }
        } else {
            Self { chunk: 1 << 12, parallel: (1 << 12) + 1 }
        }
    }
}

/// Computes `N` outputs of as many rows, on the calling thread or, from some thousand rows on, on the rayon pool that it
/// is called from. Every column has a value for each row, or one for all.
///
/// # Errors
/// Those of [`RunContext::check`], which is called before each task.
pub fn map_rows<C, T, F, const N: usize>(
    columns: C,
    rows: usize,
    granularity: Granularity,
    function: F,
    context: &RunContext<'_>,
) -> Result<[Buffer<T>; N], KernelError>
where
    C: Column,
    T: Element,
    F: BlockFunction<C, T, N>,
{
    let mut outputs: [Buffer<T>; N] =
        std::array::from_fn(|_| if N == 1 { Buffer::zeroed(rows) } else { Buffer::zeroed_with_others(rows) });
    let arch = Arch::new();
    let run = |index: usize, outputs: [&mut [T]; N]| -> Result<(), KernelError> {
        context.check()?;
        arch.dispatch(Chunk { columns: &columns, start: index * granularity.chunk, outputs, function: &function });
        Ok(())
    };
    let mut chunks = outputs.each_mut().map(|output| output.chunks_mut(granularity.chunk));
    let mut next = || chunks.each_mut().map(|chunks| chunks.next().unwrap_or_default());
    let count = rows.div_ceil(granularity.chunk);
    if rows < granularity.parallel {
        (0..count).try_for_each(|index| run(index, next()))?;
    } else {
        let tasks: Vec<_> = (0..count).map(|index| (index, next())).collect();
        tasks.into_par_iter().try_for_each(|(index, outputs)| run(index, outputs))?;
    }
    Ok(outputs)
}

/// The rows from `start` on that `outputs` have elements for.
struct Chunk<'a, C, T, F, const N: usize> {
    columns: &'a C,
    start: usize,
    outputs: [&'a mut [T]; N],
    function: &'a F,
}

impl<C, T, F, const N: usize> WithSimd for Chunk<'_, C, T, F, N>
where
    C: Column,
    T: Element,
    F: BlockFunction<C, T, N>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // All vector instruction sets that pulp picks from have fused operations; the scalar fallback may not.
        if S::IS_SCALAR { self.run::<false>() } else { self.run::<true>() }
    }
}

impl<C, T, F, const N: usize> Chunk<'_, C, T, F, N>
where
    C: Column,
    T: Element,
    F: BlockFunction<C, T, N>,
{
    #[inline(always)]
    fn run<const FUSED: bool>(mut self) {
        let mut padding = self.columns.padding();
        let mut results = [[T::zeroed(); BLOCK]; N];
        let rows = self.outputs.first().map_or(0, |output| output.len());
        for from in (0..rows).step_by(BLOCK) {
            let start = self.start + from;
            let count = BLOCK.min(rows - from);
            if count < BLOCK {
                self.columns.pad(start, &mut padding);
            }
            self.function.run::<FUSED>(self.columns.block(start, &padding), &mut results);
            for (output, result) in self.outputs.iter_mut().zip(&results) {
                output[from..from + count].copy_from_slice(&result[..count]);
            }
        }
    }
}
