//! Reductions on the CPU: chunks of a fixed length, merged in a fixed order.

use pulp::Arch;
use rayon::prelude::*;

use super::column::Column;
use crate::service::{Element, KernelError, RunContext};

/// Rows whose state is computed by one call of the author's code, which sees them in the cache more than once.
const CHUNK: usize = 1 << 12;
/// Rows of a task, after which the context is checked.
const TASK: usize = 1 << 16;

/// Reduces all rows to one state of `N` numbers: `fold` computes the state of a chunk, `merge` that of two neighbours.
///
/// The chunks and the order of the merges depend on the number of rows alone, so the result does not depend on the number
/// of threads. There has to be a row.
///
/// # Errors
/// Those of [`RunContext::check`], which is called before each task.
pub fn reduce_rows<C: Column, const N: usize>(
    columns: C,
    rows: usize,
    fold: impl Fn(C) -> [f64; N] + Sync,
    merge: impl Fn([f64; N], [f64; N]) -> [f64; N],
    context: &RunContext<'_>,
) -> Result<[f64; N], KernelError> {
    let arch = Arch::new();
    let mut states = vec![[0.0; N]; rows.div_ceil(CHUNK)];
    let task = |(index, states): (usize, &mut [[f64; N]])| -> Result<(), KernelError> {
        context.check()?;
        for (chunk, state) in states.iter_mut().enumerate() {
            let start = index * TASK + chunk * CHUNK;
            let columns = columns.slice(start..rows.min(start + CHUNK));
            *state = arch.dispatch(
                #[inline(always)]
                || fold(columns),
            );
        }
        Ok(())
    };
    if rows <= TASK {
        task((0, &mut states))?;
    } else {
        states.par_chunks_mut(TASK / CHUNK).enumerate().try_for_each(task)?;
    }
    while states.len() > 1 {
        states = states
            .chunks(2)
            .map(|pair| match pair {
                [one, other] => merge(*one, *other),
                rest => rest[0],
            })
            .collect();
    }
    Ok(states[0])
}

/// Independent sums, so that their additions need not wait for each other and become vector code.
const LANES: usize = 16;

/// The sum of a function of each element, in an order that depends on the length alone.
#[inline(always)]
pub fn sum<T: Element>(values: &[T], term: impl Fn(T) -> f64) -> f64 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += term(value);
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum, &value| sum + term(value))
}

/// The sum of a function of each pair of elements, in an order that depends on the length alone.
#[inline(always)]
pub fn sum_pairs<A: Element, B: Element>(a: &[A], b: &[B], term: impl Fn(A, B) -> f64) -> f64 {
    let ((blocks_a, rest_a), (blocks_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (block_a, block_b) in blocks_a.iter().zip(blocks_b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(block_a).zip(block_b) {
            *lane += term(a, b);
        }
    }
    rest_a.iter().zip(rest_b).fold(lanes.iter().sum(), |sum, (&a, &b)| sum + term(a, b))
}
