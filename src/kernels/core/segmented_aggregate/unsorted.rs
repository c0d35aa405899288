//! Groups rows in any order, on the CPU.
//!
//! Chunks of rows are grouped in parallel by hash tables that stay in the cache, and the groups of all chunks are merged.
//! Where a chunk has too many groups for that, the rows are first partitioned by the highest bits of the range of their
//! keys, and each part is grouped by itself: a step of a radix sort, after Müller, Sanders, Lacurie, Lehner and Färber,
//! *Cache-efficient aggregation: hashing is sorting* (2015). The parts are in the order of their keys, so that only the
//! groups of a part are sorted.
//!
//! Rows of a key are added in their order, within chunks of a fixed length: the result does not depend on the number of
//! threads.

use rayon::prelude::*;

use super::accumulator::{Accumulator, Group, Row};
use super::group_table::{GroupTable, dense_groups};
use super::rows::Rows;
use crate::service::{KernelError, RunContext};

/// Rows of a chunk, which take about a millisecond.
pub(super) const CHUNK: usize = 1 << 17;
/// The most groups of a chunk whose table is merged with those of other chunks.
const MAX_MERGED_GROUPS: usize = 1 << 11;
/// Parts of a partition.
const PARTS: usize = 256;
/// Keys in a range this many times as long as the number of rows are looked up without hashing.
const DENSE_FACTOR: u64 = 4;

/// Bytes of the partitioned rows, and of the tables and groups of all threads.
pub(super) fn scratch_bytes<V, S, E>(len: u64) -> u64 {
    let (row, group) = (size_of::<Row<V>>() as u64, size_of::<Group<S, E>>() as u64);
    let tables = (rayon::current_num_threads() * CHUNK) as u64 * 16;
    len.saturating_mul(2 * row + 2 * group).saturating_add(tables.min(len.saturating_mul(64)))
}

/// Returns the groups of all rows in several lists, ascending by key.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn groups<V, S, E>(
    rows: &(impl Rows<V> + ?Sized),
    context: &RunContext<'_>,
) -> Result<Vec<Vec<Group<S, E>>>, KernelError>
where
    V: Copy + Default + Send + Sync,
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    if let Some(groups) = few_groups(rows, context)? {
        return Ok(vec![groups]);
    }
    let mut records = vec![Row::default(); rows.len()];
    let parts = partition(rows, &mut records, context)?;
    let groups = parts.into_par_iter().map(|part| groups_of_part(part, None, context));
    Ok(groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Returns the groups of a part, which uses `spare` to partition it again; of the same length, and made where there is none.
fn groups_of_part<V, S, E>(
    part: &mut [Row<V>],
    spare: Option<&mut [Row<V>]>,
    context: &RunContext<'_>,
) -> Result<Vec<Vec<Group<S, E>>>, KernelError>
where
    V: Copy + Default + Send + Sync,
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    if let Some(groups) = few_groups(part, context)? {
        return Ok(vec![groups]);
    }
    let mut made = Vec::new();
    let spare = spare.unwrap_or_else(|| {
        made = vec![Row::default(); part.len()];
        &mut made
    });
    let parts = partition(part, spare, context)?;
    let mut rest = part;
    let with_spare: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let (spare, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            rest = behind;
            (part, spare)
        })
        .collect();
    let groups = with_spare.into_par_iter().map(|(part, spare)| groups_of_part(part, Some(spare), context));
    Ok(groups.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Returns the groups of all rows, ascending by key; `None` if there are too many to be found in this way.
fn few_groups<V, S, E>(
    rows: &(impl Rows<V> + ?Sized),
    context: &RunContext<'_>,
) -> Result<Option<Vec<Group<S, E>>>, KernelError>
where
    V: Copy + Default + Send + Sync,
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    let len = rows.len();
    if len <= CHUNK {
        context.check()?;
        return Ok(Some(groups_of_chunk(rows)));
    }
    let of_chunk = |chunk: usize| {
        context.check().map_err(Some)?;
        let mut table = GroupTable::new(2 * MAX_MERGED_GROUPS);
        let start = chunk * CHUNK;
        let mut is_too_many = false;
        rows.for_each_block(start..len.min(start + CHUNK), |block| {
            for block in block.chunks(MAX_MERGED_GROUPS) {
                // A table that may have that many groups has a slot for each row of the block besides.
                is_too_many |= table.len() > MAX_MERGED_GROUPS;
                if !is_too_many {
                    table.add(block);
                }
            }
        });
        if is_too_many { Err(None) } else { Ok(table.into_groups()) }
    };
    let chunks =
        (0..len.div_ceil(CHUNK)).into_par_iter().map(of_chunk).collect::<Result<Vec<_>, Option<KernelError>>>();
    let chunks = match chunks {
        Ok(chunks) => chunks,
        Err(None) => return Ok(None),
        Err(Some(error)) => return Err(error),
    };
    let mut all = GroupTable::new(2 * MAX_MERGED_GROUPS);
    for chunk in chunks {
        context.check()?;
        chunk.into_iter().for_each(|group| all.merge::<V>(group));
    }
    Ok(Some(all.into_sorted()))
}

/// Returns the groups of at most [`CHUNK`] rows, ascending by key.
fn groups_of_chunk<V, S, E>(rows: &(impl Rows<V> + ?Sized)) -> Vec<Group<S, E>>
where
    V: Copy + Default + Send + Sync,
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    let len = rows.len();
    let mut copied = Vec::with_capacity(len);
    rows.for_each_block(0..len, |block| copied.extend_from_slice(block));
    let (min, max) = key_range(&copied);
    if min > max {
        return Vec::new();
    }
    if max - min < DENSE_FACTOR * len as u64 {
        return dense_groups(&copied, min, max);
    }
    let mut table = GroupTable::new(len);
    table.add(&copied);
    table.into_sorted()
}

/// Returns the smallest and the largest key; the other way round if there is none.
fn key_range<V>(rows: &[Row<V>]) -> (u64, u64) {
    rows.iter().fold((u64::MAX, 0), |(min, max), row| (min.min(row.key), max.max(row.key)))
}

/// Moves the rows to `to`, in parts of ascending ranges of keys; within a part they stay in order.
fn partition<'a, V: Copy + Send + Sync>(
    rows: &(impl Rows<V> + ?Sized),
    to: &'a mut [Row<V>],
    context: &RunContext<'_>,
) -> Result<Vec<&'a mut [Row<V>]>, KernelError> {
    let len = rows.len();
    let chunks: Vec<_> = (0..len).step_by(CHUNK).map(|start| start..len.min(start + CHUNK)).collect();
    let range_of_chunk = |chunk: &std::ops::Range<usize>| {
        context.check()?;
        let mut range = (u64::MAX, 0);
        rows.for_each_block(chunk.clone(), |block| {
            let (min, max) = key_range(block);
            range = (range.0.min(min), range.1.max(max));
        });
        Ok::<_, KernelError>(range)
    };
    let wider = |(min, max): (u64, u64), other: (u64, u64)| Ok((min.min(other.0), max.max(other.1)));
    let (min, max) = chunks.par_iter().map(range_of_chunk).try_reduce(|| (u64::MAX, 0), wider)?;
    let shift = (u64::BITS - (max - min).leading_zeros()).saturating_sub(PARTS.trailing_zeros());
    let part_of = |row: &Row<V>| ((row.key - min) >> shift) as usize;

    let counts_of_chunk = |chunk: &std::ops::Range<usize>| {
        context.check()?;
        let mut counts = [0_usize; PARTS];
        rows.for_each_block(chunk.clone(), |block| block.iter().for_each(|row| counts[part_of(row)] += 1));
        Ok::<_, KernelError>(counts)
    };
    let counts: Vec<[usize; PARTS]> = chunks.par_iter().map(counts_of_chunk).collect::<Result<_, _>>()?;
    let lengths: Vec<usize> = (0..PARTS).map(|part| counts.iter().map(|counts| counts[part]).sum()).collect();

    // A segment of the target for each part and chunk, in this order.
    let mut segments: Vec<Vec<std::slice::IterMut<'_, Row<V>>>> =
        chunks.iter().map(|_| Vec::with_capacity(PARTS)).collect();
    let mut rest = &mut *to;
    for part in 0..PARTS {
        for (segments, counts) in segments.iter_mut().zip(&counts) {
            let (segment, behind) = std::mem::take(&mut rest).split_at_mut(counts[part]);
            segments.push(segment.iter_mut());
            rest = behind;
        }
    }
    chunks.into_par_iter().zip(segments).try_for_each(|(chunk, mut segments)| {
        context.check()?;
        rows.for_each_block(chunk, |block| {
            for row in block {
                *segments[part_of(row)].next().expect("the counts are those of the chunk") = *row;
            }
        });
        Ok::<_, KernelError>(())
    })?;

    let mut rest = to;
    Ok(lengths
        .into_iter()
        .map(|len| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            part
        })
        .filter(|part| !part.is_empty())
        .collect())
}
