//! Selection on the CPU, parallel over the worker pool.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::kernels::ordered_bits::{OrderedBits, OrderedNumber, SortOrder};
use crate::service::{Buffer, KernelError, RunContext};

/// Numbers that a thread reads between two checks of the context, and the least that is worth a task.
const CHUNK: usize = 1 << 16;
/// Candidates for which there is room besides the first k.
const MIN_ROOM: usize = 1 << 11;

/// Ordered bits and the index of their number: in this order.
type Entry<B> = (B, u32);

/// Bytes of the candidates of all threads, and of what the tasks of a row have kept.
pub(super) fn scratch_bytes(k: u64, values: u64) -> u64 {
    let k = k.min(values);
    // A vector grows to twice what it has to hold.
    let candidates = k.saturating_add(k.max(MIN_ROOM as u64)).saturating_mul(2);
    let tasks = (values / CHUNK as u64 + 1).min(4 * rayon::current_num_threads() as u64);
    tasks.saturating_mul(candidates.saturating_add(k)).saturating_mul(size_of::<Entry<u64>>() as u64)
}

/// Returns the first `k` numbers of each row, and their indices in the row.
///
/// # Errors
/// Those of [`RunContext::check`].
pub fn first_of_rows<T: OrderedNumber>(
    numbers: &[T],
    row_len: usize,
    k: usize,
    order: SortOrder,
    context: &RunContext<'_>,
) -> Result<(Buffer<T>, Buffer<u32>), KernelError> {
    let outputs = numbers.len() / row_len * k;
    let (mut values, mut indices) = (Buffer::zeroed_with_others(outputs), Buffer::zeroed_with_others(outputs));
    let rows = numbers.par_chunks(row_len).zip(values.par_chunks_mut(k)).zip(indices.par_chunks_mut(k));
    rows.try_for_each(|((row, values), indices)| {
        let first = first_of_row(row, k, order, context)?;
        for ((entry, value), index) in first.into_iter().zip(values).zip(indices) {
            (*value, *index) = (T::from_ordered(entry.0, order), entry.1);
        }
        Ok::<_, KernelError>(())
    })?;
    Ok((values, indices))
}

/// Returns the first `k` entries of a row in order.
fn first_of_row<T: OrderedNumber>(
    row: &[T],
    k: usize,
    order: SortOrder,
    context: &RunContext<'_>,
) -> Result<Vec<Entry<T::Bits>>, KernelError> {
    // The bound of all tasks: no key after it is among the first k.
    let bound = AtomicU64::new(u64::MAX);
    let task_len = row.len().div_ceil(4 * rayon::current_num_threads()).max(CHUNK);
    let of_task = |(task, numbers): (usize, &[T])| {
        let mut candidates = Candidates::new(k, &bound);
        for (chunk, numbers) in numbers.chunks(CHUNK).enumerate() {
            context.check()?;
            candidates.add(numbers, (task * task_len + chunk * CHUNK) as u32, order);
        }
        candidates.keep_first();
        Ok(candidates.entries)
    };
    let tasks = row.par_chunks(task_len).enumerate().map(of_task);
    let mut kept: Vec<_> = tasks.collect::<Result<Vec<_>, KernelError>>()?.into_iter().flatten().collect();
    if kept.len() > k {
        kept.select_nth_unstable(k - 1);
        kept.truncate(k);
    }
    kept.sort_unstable();
    Ok(kept)
}

/// The entries of a part of a row that may be among its first k.
struct Candidates<'a, B> {
    k: usize,
    room: usize,
    entries: Vec<Entry<B>>,
    bound: &'a AtomicU64,
}

impl<'a, B: OrderedBits> Candidates<'a, B> {
    fn new(k: usize, bound: &'a AtomicU64) -> Self {
        Self { k, room: k + k.max(MIN_ROOM), entries: Vec::new(), bound }
    }

    /// Adds numbers, of which the first has this index.
    fn add<T: OrderedNumber<Bits = B>>(&mut self, numbers: &[T], first_index: u32, order: SortOrder) {
        const BLOCK: usize = 256;
        for (block, numbers) in numbers.chunks(BLOCK).enumerate() {
            let bound = self.bound.load(Ordering::Relaxed);
            // Without a branch for each number this is vector code, and it is seldom true.
            let is_before = |key: B| Into::<u64>::into(key) <= bound;
            if !numbers.iter().fold(false, |any, &number| any | is_before(number.to_ordered(order))) {
                continue;
            }
            let entries = numbers.iter().zip(first_index + (block * BLOCK) as u32..);
            let entries = entries.map(|(&number, index)| (number.to_ordered(order), index));
            self.entries.extend(entries.filter(|(key, _)| is_before(*key)));
            if self.entries.len() > self.room {
                self.keep_first();
            }
        }
    }

    /// Keeps the first k of the candidates, and lowers the bound to the last of them.
    fn keep_first(&mut self) {
        if self.entries.len() <= self.k {
            return;
        }
        let (_, last, _) = self.entries.select_nth_unstable(self.k - 1);
        let bound: u64 = last.0.into();
        self.bound.fetch_min(bound, Ordering::Relaxed);
        self.entries.truncate(self.k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;
    use crate::kernels::core::sort::radix_sort::sort_with_indices;

    #[test]
    fn the_first_of_a_row_are_the_beginning_of_its_sort() {
        let context = RunContext::detached();
        for (rows, row_len) in [(1, 1), (1, CHUNK + 1), (1, 1 << 20), (300, 77), (3, 5_000)] {
            for bound in [1, 50, u64::MAX >> 1] {
                let mut random = Random::new(bound);
                let numbers: Vec<i64> = (0..rows * row_len).map(|_| random.below(bound).cast_signed()).collect();
                for (order, k) in
                    [(SortOrder::Ascending, 1), (SortOrder::Descending, 70), (SortOrder::Descending, 4_000)]
                {
                    let k = k.min(row_len);
                    let (values, indices) = first_of_rows(&numbers, row_len, k, order, &context).unwrap();
                    for row in 0..rows {
                        let of_row = &numbers[row * row_len..(row + 1) * row_len];
                        let (sorted, sorted_indices) = sort_with_indices(of_row, order, &context).unwrap();
                        let here = row * k..(row + 1) * k;
                        assert_eq!(values[here.clone()], sorted[..k], "{row_len} of {bound}, {k}, {order:?}");
                        assert_eq!(indices[here], sorted_indices[..k], "{row_len} of {bound}, {k}, {order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_in_the_worst_order_are_selected_as_well() {
        let numbers: Vec<u32> = (0..1 << 20).collect();
        let (values, _) =
            first_of_rows(&numbers, 1 << 20, 100, SortOrder::Descending, &RunContext::detached()).unwrap();
        assert!(values.iter().copied().eq((0..1 << 20).rev().take(100)));
    }

    #[test]
    fn a_cancelled_selection_ends() {
        let context = RunContext::new(Some(&|| true), None);
        let error = first_of_rows(&[1, 2, 3], 3, 1, SortOrder::Ascending, &context).unwrap_err();
        assert!(matches!(error, KernelError::Cancelled), "{error}");
    }
}
