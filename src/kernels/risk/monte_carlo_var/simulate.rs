//! Scenarios on the CPU: blocks of them in vector code, on the rayon pool.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::book::Book;
use super::philox::{normals, philox};
use super::select::Level;
use crate::kernels::authoring::elementary::mul_add;
use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};
use crate::service::{KernelError, RunContext};

/// Scenarios that are computed together.
const BLOCK: usize = 64;
/// Scenarios of a task.
const TASK: usize = 1 << 12;
/// Losses that a task of a later pass reads. Sums are made of those of tasks in order, so they do not depend on the
/// threads.
const LOSSES_PER_TASK: usize = 1 << 16;

/// The losses of all scenarios.
#[derive(Debug)]
pub(super) struct HostLosses<'a> {
    losses: Vec<f32>,
    context: &'a RunContext<'a>,
}

/// The coefficients of a book in single precision, padded to four factors for each call of the generator.
struct Coefficients {
    constant: f32,
    linear: Vec<[f32; 4]>,
    square: Vec<[f32; 4]>,
}

impl Coefficients {
    /// Of the losses: the negative of the profit and loss.
    fn new(book: &Book) -> Self {
        let padded = |values: &[f64]| {
            let group =
                |group: &[f64]| std::array::from_fn(|index| group.get(index).map_or(0.0, |value| -value as f32));
            values.chunks(4).map(group).collect()
        };
        Self { constant: -book.constant as f32, linear: padded(&book.linear), square: padded(&book.square) }
    }
}

impl<'a> HostLosses<'a> {
    /// Simulates scenarios 0 to `count`.
    pub(super) fn simulate(
        book: &Book,
        seed: u64,
        count: usize,
        context: &'a RunContext<'a>,
    ) -> Result<Self, KernelError> {
        let coefficients = Coefficients::new(book);
        let mut losses = vec![0.0; count];
        let arch = Arch::new();
        let task = |(index, losses): (usize, &mut [f32])| -> Result<(), KernelError> {
            for (block, losses) in losses.chunks_mut(BLOCK).enumerate() {
                context.check()?;
                let first = (index * TASK + block * BLOCK) as u64;
                let values = arch.dispatch(Block { coefficients: &coefficients, seed, first });
                losses.copy_from_slice(&values[..losses.len()]);
            }
            Ok(())
        };
        losses.par_chunks_mut(TASK).enumerate().try_for_each(task)?;
        Ok(Self { losses, context })
    }
}

/// The scenarios from `first` on.
struct Block<'a> {
    coefficients: &'a Coefficients,
    seed: u64,
    first: u64,
}

impl WithSimd for Block<'_> {
    type Output = [f32; BLOCK];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f32; BLOCK] {
        // All vector instruction sets that pulp picks from have fused operations; the scalar fallback may not.
        if S::IS_SCALAR { self.losses::<false>() } else { self.losses::<true>() }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn losses<const FUSED: bool>(&self) -> [f32; BLOCK] {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let mut sums = [self.coefficients.constant; BLOCK];
        for (group, (linear, square)) in self.coefficients.linear.iter().zip(&self.coefficients.square).enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                // A block does not cross a multiple of 2^32.
                let counter =
                    [(self.first as u32).wrapping_add(lane as u32), (self.first >> 32) as u32, group as u32, 0];
                let [a, b, c, d] = philox(counter, key);
                let ([z0, z1], [z2, z3]) = (normals::<FUSED>([a, b]), normals::<FUSED>([c, d]));
                for (index, z) in [z0, z1, z2, z3].into_iter().enumerate() {
                    let slope = mul_add::<f32, FUSED>(square[index], z, linear[index]);
                    *sum = mul_add::<f32, FUSED>(slope, z, *sum);
                }
            }
        }
        sums
    }
}

impl super::Losses for HostLosses<'_> {
    fn count(&mut self, level: &Level) -> Result<Vec<u32>, KernelError> {
        let tasks = self.losses.par_chunks(LOSSES_PER_TASK);
        let count = |mut counts: Vec<u32>, losses: &[f32]| -> Result<Vec<u32>, KernelError> {
            self.context.check()?;
            for &loss in losses {
                if let Some(bin) = level.bin(loss.to_ordered(SortOrder::Ascending)) {
                    counts[bin] += 1;
                }
            }
            Ok(counts)
        };
        let add = |mut counts: Vec<u32>, others: Vec<u32>| -> Result<Vec<u32>, KernelError> {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
            Ok(counts)
        };
        tasks.try_fold(|| vec![0; level.bins()], count).try_reduce(|| vec![0; level.bins()], add)
    }

    fn sums(&mut self, origin: f64, only_above: bool) -> Result<[f64; 2], KernelError> {
        let sums = |losses: &[f32]| -> Result<[f64; 2], KernelError> {
            self.context.check()?;
            let distance = |loss: f32| f64::from(loss) - origin;
            let distance = |loss: &f32| if only_above { distance(*loss).max(0.0) } else { distance(*loss) };
            Ok(losses.iter().map(distance).fold([0.0, 0.0], |[sum, squares], x| [sum + x, squares + x * x]))
        };
        let tasks: Result<Vec<[f64; 2]>, KernelError> = self.losses.par_chunks(LOSSES_PER_TASK).map(sums).collect();
        Ok(tasks?.into_iter().fold([0.0, 0.0], |[sum, squares], [a, b]| [sum + a, squares + b]))
    }
}
