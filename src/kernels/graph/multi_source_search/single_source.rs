//! Searches from one source after the other on the CPU, on several threads, for deep graphs.
//!
//! The levels of a search from one source have few nodes there, and mostly different ones from each source, so that
//! sources would share few arcs.

use rayon::prelude::*;

use super::{DistanceSum, SearchGraph, SumBy};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::service::{Footprint, KernelError, RunContext};

/// Sums of nodes that all threads together may have, unless one thread alone has more.
const MAX_SUMS: u64 = 1 << 25;

/// Returns the number of threads that search.
fn threads(nodes: u64, sources: u64, by: SumBy) -> u64 {
    let affordable = match by {
        SumBy::Source => u64::MAX,
        SumBy::Node => MAX_SUMS / nodes.max(1),
    };
    (rayon::current_num_threads() as u64).min(sources).min(affordable).max(1)
}

/// Returns the memory of [`search`], without the graph and the sums that it returns.
pub(super) fn workspace(nodes: u64, sources: u64, by: SumBy) -> u64 {
    let sums = match by {
        SumBy::Source => 0,
        SumBy::Node => Footprint::of_array::<DistanceSum>(nodes),
    };
    let search = Footprint::of_array::<[u32; 2]>(nodes).saturating_add(sums);
    search.saturating_mul(threads(nodes, sources, by))
}

/// Returns the sums of the distances from `sources`, for each of them or for each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn search(
    graph: SearchGraph<'_>,
    sources: &[u32],
    by: SumBy,
    context: &RunContext<'_>,
) -> Result<Vec<DistanceSum>, KernelError> {
    let nodes = graph.num_nodes();
    let threads = threads(nodes as u64, sources.len() as u64, by) as usize;
    let parts = sources.par_chunks(sources.len().div_ceil(threads)).map(|sources| {
        let mut sums = vec![DistanceSum::default(); if by == SumBy::Node { nodes } else { sources.len() }];
        let mut search = Search::new(graph, context);
        for (index, &source) in sources.iter().enumerate() {
            search.run(source, |distance, found| match by {
                SumBy::Source => sums[index].add(found.len() as u64, distance),
                SumBy::Node => found.iter().for_each(|&node| sums[node as usize].add(1, distance)),
            })?;
            context.advance(1);
        }
        Ok(sums)
    });
    match by {
        SumBy::Source => Ok(parts.collect::<Result<Vec<_>, KernelError>>()?.concat()),
        SumBy::Node => parts.try_reduce_with(merge).unwrap_or_else(|| Ok(vec![DistanceSum::default(); nodes])),
    }
}

/// Adds the sums of the same nodes.
fn merge(mut sums: Vec<DistanceSum>, others: Vec<DistanceSum>) -> Result<Vec<DistanceSum>, KernelError> {
    for (sum, other) in sums.iter_mut().zip(others) {
        sum.count += other.count;
        sum.total += other.total;
        sum.largest = sum.largest.max(other.largest);
    }
    Ok(sums)
}

/// Breadth-first searches from one source after the other, on one thread.
struct Search<'a> {
    graph: SearchGraph<'a>,
    cancel_check: CancelCheck<'a>,
    /// The number of the last search that found each node, from 1.
    found_by: Vec<u32>,
    /// The number of the present search.
    number: u32,
    /// The nodes that it found, level by level.
    queue: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(graph: SearchGraph<'a>, context: &'a RunContext<'a>) -> Self {
        let nodes = graph.num_nodes();
        let queue = Vec::with_capacity(nodes);
        Self { graph, cancel_check: CancelCheck::new(context), found_by: vec![0; nodes], number: 0, queue }
    }

    /// Calls `of_level` with each distance but 0, and the nodes that are that far from the source.
    fn run(&mut self, source: u32, mut of_level: impl FnMut(u64, &[u32])) -> Result<(), KernelError> {
        let Self { graph, cancel_check, found_by, queue, .. } = self;
        self.number += 1;
        queue.clear();
        queue.push(source);
        found_by[source as usize] = self.number;
        let mut level = 0..1;
        for distance in 1.. {
            for index in level.clone() {
                let row = graph.next.row(queue[index]);
                cancel_check.spend(1 + row.len())?;
                for &node in row {
                    let found_by = &mut found_by[node as usize];
                    if *found_by != self.number {
                        *found_by = self.number;
                        queue.push(node);
                    }
                }
            }
            level = level.end..queue.len();
            if level.is_empty() {
                break;
            }
            of_level(distance, &queue[level.clone()]);
        }
        Ok(())
    }
}
