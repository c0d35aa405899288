//! Groups rows whose keys ascend, on the CPU.

use rayon::prelude::*;

use super::accumulator::{Accumulator, Group};
use super::rows::Rows;
use super::unsorted::CHUNK;
use crate::service::{KernelError, RunContext};

/// Returns the groups of all rows in several lists, ascending by key. `descent` makes the error of a row whose key is below
/// that of the row before.
///
/// # Errors
/// The keys do not ascend; those of [`RunContext::check`].
pub(super) fn groups<V, S, E>(
    rows: &(impl Rows<V> + ?Sized),
    descent: impl Fn(usize) -> KernelError + Sync,
    context: &RunContext<'_>,
) -> Result<Vec<Vec<Group<S, E>>>, KernelError>
where
    V: Copy + Send + Sync,
    S: Accumulator<V>,
    E: Accumulator<V>,
{
    let len = rows.len();
    let of_chunk = |chunk: usize| {
        context.check()?;
        let start = chunk * CHUNK;
        let mut groups: Vec<Group<S, E>> = Vec::new();
        let (mut index, mut first_descent) = (start, None);
        rows.for_each_block(start..len.min(start + CHUNK), |block| {
            for row in block {
                match groups.last_mut() {
                    Some(last) if last.key == row.key => last.add(row.value),
                    last => {
                        if last.is_some_and(|last| last.key > row.key) {
                            first_descent.get_or_insert(index);
                        }
                        groups.push(Group::new(row));
                    }
                }
                index += 1;
            }
        });
        first_descent.map_or(Ok(groups), |row| Err(descent(row)))
    };
    let chunks = (0..len.div_ceil(CHUNK)).into_par_iter().map(of_chunk).collect::<Result<Vec<_>, KernelError>>()?;

    let mut lists: Vec<Vec<Group<S, E>>> = Vec::with_capacity(chunks.len());
    for (chunk, mut groups) in chunks.into_iter().enumerate() {
        let before = lists.last_mut();
        if let (Some(before), Some(first)) = (before, groups.first_mut())
            && let Some(last) = before.pop()
        {
            if last.key > first.key {
                return Err(descent(chunk * CHUNK));
            }
            if last.key == first.key {
                let mut merged = last;
                merged.merge::<V>(*first);
                *first = merged;
            } else {
                before.push(last);
            }
        }
        lists.push(groups);
    }
    Ok(lists)
}
