//! A stable radix sort on the CPU, parallel over the worker pool.
//!
//! A pass sorts by 8 bits of the ordered bits. The array is cut into chunks. Each chunk counts its digits; the counts cut
//! the target into a segment for each digit and chunk, in this order; and each chunk moves its records to its segments, front
//! to back. Passes in whose digit all numbers agree are left out.

use bytemuck::Pod;
use rayon::prelude::*;

use crate::kernels::ordered_bits::{OrderedBits, OrderedNumber, SortOrder};
use crate::service::{Buffer, KernelError, RunContext};

/// The number of values of a digit.
const DIGITS: usize = 256;
/// Records of a chunk: at most what takes some milliseconds, and at least what is worth a task.
const MAX_CHUNK: usize = 1 << 19;
const MIN_CHUNK: usize = 1 << 14;
/// Records up to which a comparison sort is faster.
const SMALL: usize = 1 << 10;

/// Bytes of the counts and segments of all chunks.
pub(super) fn scratch_bytes(len: u64) -> u64 {
    let chunks = len / MIN_CHUNK as u64 + 1;
    chunks.min(len / MAX_CHUNK as u64 + 4 * rayon::current_num_threads() as u64).saturating_mul(24 * DIGITS as u64)
}

/// Sorts numbers.
///
/// # Errors
/// Those of [`RunContext::check`].
pub fn sort<T: OrderedNumber>(
    numbers: &[T],
    order: SortOrder,
    context: &RunContext<'_>,
) -> Result<Buffer<T>, KernelError> {
    let records = sort_records(numbers, |_, number| number.to_ordered(order), context)?;
    let mut sorted = Buffer::zeroed(numbers.len());
    map_chunks(&records, &mut sorted, |_, &bits| T::from_ordered(bits, order), context)?;
    Ok(sorted)
}

/// Sorts numbers; returns them and the index that each had in the input, which has fewer than 2^32.
///
/// # Errors
/// Those of [`RunContext::check`].
pub fn sort_with_indices<T: OrderedNumber>(
    numbers: &[T],
    order: SortOrder,
    context: &RunContext<'_>,
) -> Result<(Buffer<T>, Buffer<u32>), KernelError> {
    let pair = |index, number: &T| [number.to_ordered(order), T::Bits::from_index(index as u32)];
    let records = sort_records(numbers, pair, context)?;
    let mut sorted = Buffer::zeroed_with_others(numbers.len());
    map_chunks(&records, &mut sorted, |_, &[bits, _]| T::from_ordered(bits, order), context)?;
    let mut indices = Buffer::zeroed_with_others(numbers.len());
    map_chunks(&records, &mut indices, |_, &[_, index]| index.to_index(), context)?;
    Ok((sorted, indices))
}

/// What is moved: ordered bits, alone or with the index of their number.
trait Record: Pod + Ord + Send + Sync {
    type Key: OrderedBits;

    fn key(&self) -> Self::Key;
}

impl<B: OrderedBits> Record for B {
    type Key = B;

    fn key(&self) -> B {
        *self
    }
}

impl<B: OrderedBits> Record for [B; 2] {
    type Key = B;

    fn key(&self) -> B {
        self[0]
    }
}

/// Returns the records of all elements, sorted by key, those with the same key in the order of the elements.
fn sort_records<T: Sync, R: Record>(
    elements: &[T],
    record: impl Fn(usize, &T) -> R + Sync,
    context: &RunContext<'_>,
) -> Result<Vec<R>, KernelError> {
    if elements.len() <= SMALL {
        let mut records: Vec<R> = elements.iter().enumerate().map(|(index, element)| record(index, element)).collect();
        // Records with the same key are the same, or differ in their index.
        records.sort_unstable();
        return Ok(records);
    }
    let mut records = vec![R::zeroed(); elements.len()];
    map_chunks(elements, &mut records, record, context)?;
    let differing = differing_bits(&records, context)?;
    let mut target = Vec::new();
    for digit in (0..R::Key::DIGITS).filter(|&digit| differing.digit(digit) != 0) {
        if target.is_empty() {
            target = vec![R::zeroed(); elements.len()];
        }
        sort_by_digit(&records, &mut target, digit, context)?;
        std::mem::swap(&mut records, &mut target);
    }
    Ok(records)
}

/// The length of the chunks that an array of this length is cut into.
fn chunk_len(len: usize) -> usize {
    len.div_ceil(4 * rayon::current_num_threads()).clamp(MIN_CHUNK, MAX_CHUNK)
}

/// Computes each element of `to` from the element of `from` with the same index, in parallel.
fn map_chunks<S: Sync, D: Send>(
    from: &[S],
    to: &mut [D],
    function: impl Fn(usize, &S) -> D + Sync,
    context: &RunContext<'_>,
) -> Result<(), KernelError> {
    let len = chunk_len(from.len());
    let chunks = from.par_chunks(len).zip(to.par_chunks_mut(len)).enumerate();
    chunks.try_for_each(|(chunk, (from, to))| {
        context.check()?;
        for (index, (from, to)) in from.iter().zip(to).enumerate() {
            *to = function(chunk * len + index, from);
        }
        Ok(())
    })
}

/// Returns the bits in which any two keys differ.
fn differing_bits<R: Record>(records: &[R], context: &RunContext<'_>) -> Result<R::Key, KernelError> {
    let first = records[0].key();
    let of_chunk = |chunk: &[R]| {
        context.check()?;
        Ok(chunk.iter().fold(R::Key::ZERO, |bits, record| bits | (record.key() ^ first)))
    };
    let chunks = records.par_chunks(chunk_len(records.len()));
    chunks.map(of_chunk).try_reduce(|| R::Key::ZERO, |bits, others| Ok(bits | others))
}

/// Moves the records to `to`, in the order of one digit of their keys.
fn sort_by_digit<R: Record>(from: &[R], to: &mut [R], digit: u32, context: &RunContext<'_>) -> Result<(), KernelError> {
    let chunks: Vec<&[R]> = from.chunks(chunk_len(from.len())).collect();
    let count = |chunk: &&[R]| {
        context.check()?;
        let mut counts = [0; DIGITS];
        for record in *chunk {
            counts[record.key().digit(digit)] += 1;
        }
        Ok(counts)
    };
    let counts: Vec<[usize; DIGITS]> = chunks.par_iter().map(count).collect::<Result<_, KernelError>>()?;

    let mut segments: Vec<Vec<std::slice::IterMut<'_, R>>> =
        chunks.iter().map(|_| Vec::with_capacity(DIGITS)).collect();
    let mut rest = to;
    for value in 0..DIGITS {
        for (segments, counts) in segments.iter_mut().zip(&counts) {
            let (segment, behind) = std::mem::take(&mut rest).split_at_mut(counts[value]);
            segments.push(segment.iter_mut());
            rest = behind;
        }
    }

    chunks.into_par_iter().zip(segments).try_for_each(|(chunk, mut segments)| {
        context.check()?;
        for record in chunk {
            let place = segments[record.key().digit(digit)].next().expect("the counts are those of the chunk");
            *place = *record;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    /// Numbers of which many are equal, so that stability shows.
    fn numbers(len: usize, bound: u64) -> Vec<i64> {
        let mut random = Random::new(len as u64);
        (0..len).map(|_| random.below(bound).cast_signed() - 1_000).collect()
    }

    #[test]
    fn the_sort_is_that_of_the_standard_library() {
        for len in [0, 1, 2, SMALL, SMALL + 1, MIN_CHUNK, MIN_CHUNK + 1, 300_000] {
            for bound in [1, 5_000, u64::MAX >> 2] {
                let numbers = numbers(len, bound);
                let mut expected: Vec<(i64, u32)> = numbers.iter().copied().zip(0..).collect();
                for order in [SortOrder::Ascending, SortOrder::Descending] {
                    expected.sort_unstable_by_key(|(_, index)| *index);
                    match order {
                        SortOrder::Ascending => expected.sort_by_key(|(number, _)| *number),
                        SortOrder::Descending => expected.sort_by_key(|(number, _)| std::cmp::Reverse(*number)),
                    }
                    let (sorted, indices) = sort_with_indices(&numbers, order, &RunContext::detached()).unwrap();
                    let alone = sort(&numbers, order, &RunContext::detached()).unwrap();
                    assert!(sorted == alone, "{len} of {bound}, {order:?}");
                    let pairs = sorted.iter().copied().zip(indices.iter().copied());
                    assert!(pairs.eq(expected.iter().copied()), "{len} of {bound}, {order:?}");
                }
            }
        }
    }

    #[test]
    fn a_cancelled_sort_ends() {
        let context = RunContext::new(Some(&|| true), None);
        for len in [SMALL + 1, 1 << 20] {
            let error = sort(&numbers(len, 100), SortOrder::Ascending, &context).unwrap_err();
            assert!(matches!(error, KernelError::Cancelled), "{error}");
        }
    }
}
