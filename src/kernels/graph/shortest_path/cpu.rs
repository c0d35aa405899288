//! Breadth-first search on the CPU, in parallel over sources and within large levels.

use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::targets::{PathFinder, Paths, Targets, Unreached};
use super::{ShortestPathOutput, UNREACHABLE, from_each, predecessors_at_hand};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::node_ranges::{for_each_range, into_values, map_ranges};
use crate::service::{Footprint, KernelError, RunContext};

/// A level pulls from its nodes' predecessors if its arcs times this are more than those of the nodes not yet reached.
const PULL_FACTOR: usize = 14;

/// Arcs of a level below which sharing it among threads takes longer than one thread does.
const SEQUENTIAL_ARCS: usize = 1 << 14;

/// Nodes of a level that a thread takes at a time.
const NODES_PER_TASK: usize = 256;

/// The memory that [`search`] takes for the levels of the searches that run at the same time.
pub(super) fn workspace(nodes: u64) -> u64 {
    // A level, and the next one in parts and as a whole.
    Footprint::of_array::<[u32; 4]>(nodes).saturating_mul(rayon::current_num_threads() as u64)
}

/// Returns the distances and, if requested, the predecessors from each source.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn search(
    graph: &CsrGraph,
    sources: &[u32],
    with_predecessors: bool,
    context: &RunContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let distances = unreachable(nodes * sources.len());
    let predecessors = unreachable(if with_predecessors { distances.len() } else { 0 });
    context.set_steps(sources.len() as u64);
    let run = |index: usize| -> Result<(), KernelError> {
        let own = index * nodes..(index + 1) * nodes;
        let search = Search {
            successors: graph.successors(),
            predecessors: predecessors_at_hand(graph),
            follows: |_, _, _| true,
            distances: &distances[own.clone()],
            context,
        };
        search.run(sources[index], None)?;
        if with_predecessors {
            search.find_predecessors(&predecessors[own])?;
        }
        context.advance(1);
        Ok(())
    };
    match sources.len() {
        1 => run(0)?,
        count => (0..count).into_par_iter().try_for_each(run)?,
    }
    Ok(ShortestPathOutput {
        distances: into_values(distances).into(),
        predecessors: into_values(predecessors).into(),
        ..ShortestPathOutput::default()
    })
}

/// Returns the distances and, if requested, the paths from each source to each target.
///
/// # Errors
/// The paths have more nodes than the input allows; those of [`RunContext::check`].
pub(super) fn search_to(
    graph: &CsrGraph,
    sources: &[u32],
    targets: Targets<'_>,
    context: &RunContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let finder = PathFinder::new(targets, graph, context)?;
    context.set_steps(sources.len() as u64);
    let run = |&source: &u32| -> Result<(Vec<u32>, Paths), KernelError> {
        let distances = unreachable(graph.num_nodes());
        let search = Search {
            successors: graph.successors(),
            predecessors: predecessors_at_hand(graph),
            follows: |_, _, _| true,
            distances: &distances,
            context,
        };
        search.run(source, Some(targets.nodes))?;
        let to_targets = targets.nodes.iter().map(|&target| search.distance(target)).collect();
        let paths = match &finder {
            Some(finder) => finder.paths(|node| search.distance(node), |_, _, _| true, context)?,
            None => Paths::default(),
        };
        context.advance(1);
        Ok((to_targets, paths))
    };
    let (distances, paths) = from_each(sources, run)?;
    let output = ShortestPathOutput { distances: distances.concat().into(), ..ShortestPathOutput::default() };
    Ok(targets.finish(output, paths))
}

/// The distances before a search.
pub(super) fn unreachable(len: usize) -> Vec<AtomicU32> {
    std::iter::repeat_with(|| AtomicU32::new(UNREACHABLE)).take(len).collect()
}

/// The search from one source.
pub(super) struct Search<'a, F> {
    pub(super) successors: &'a Adjacency,
    /// For levels that pull; they follow all arcs.
    pub(super) predecessors: Option<&'a Adjacency>,
    /// Whether the search follows an arc: the node that it leads from, its index, and the node that it leads to.
    pub(super) follows: F,
    /// In arcs that are followed, [`UNREACHABLE`] before the search.
    pub(super) distances: &'a [AtomicU32],
    pub(super) context: &'a RunContext<'a>,
}

impl<F: Fn(u32, usize, u32) -> bool + Sync> Search<'_, F> {
    pub(super) fn distance(&self, node: u32) -> u32 {
        self.distances[node as usize].load(Ordering::Relaxed)
    }

    /// Finds all distances, level by level, or those up to the level at which all targets are reached.
    pub(super) fn run(&self, source: u32, targets: Option<&[u32]>) -> Result<(), KernelError> {
        let mut cancel_check = CancelCheck::new(self.context);
        cancel_check.check()?;
        self.distances[source as usize].store(0, Ordering::Relaxed);
        let mut level = vec![source];
        let mut next = Vec::new();
        let mut targets = Unreached::new(targets);
        let mut unexplored_arcs = self.successors.column_indices().len();
        for depth in 0.. {
            if targets.all_reached(|target| self.distance(target) != UNREACHABLE) {
                break;
            }
            let arcs: usize = level.iter().map(|&node| self.successors.degree(node)).sum();
            unexplored_arcs -= arcs;
            cancel_check.spend(level.len())?;
            next.clear();
            match self.predecessors {
                Some(predecessors) if arcs * PULL_FACTOR > unexplored_arcs && arcs > SEQUENTIAL_ARCS => {
                    self.pull(predecessors, depth, &mut next)?;
                }
                _ if arcs > SEQUENTIAL_ARCS => self.push_in_parallel(&level, depth, &mut next)?,
                _ => {
                    for &node in &level {
                        self.push(node, depth, &mut next, &mut cancel_check)?;
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            std::mem::swap(&mut level, &mut next);
        }
        Ok(())
    }

    /// Adds to `found` the successors of a node at this depth that this call reaches first.
    fn push(
        &self,
        node: u32,
        depth: u32,
        found: &mut Vec<u32>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        for (arc, next) in self.successors.indexed_row(node) {
            cancel_check.spend(1)?;
            let distance = &self.distances[next as usize];
            let is_first =
                || distance.compare_exchange(UNREACHABLE, depth + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if distance.load(Ordering::Relaxed) == UNREACHABLE && (self.follows)(node, arc, next) && is_first() {
                found.push(next);
            }
        }
        Ok(())
    }

    fn push_in_parallel(&self, level: &[u32], depth: u32, found: &mut Vec<u32>) -> Result<(), KernelError> {
        let parts = level.par_chunks(NODES_PER_TASK).map(|nodes| {
            let mut cancel_check = CancelCheck::new(self.context);
            let mut found = Vec::new();
            for &node in nodes {
                self.push(node, depth, &mut found, &mut cancel_check)?;
            }
            Ok(found)
        });
        let parts = parts.collect::<Result<Vec<_>, KernelError>>()?;
        found.extend(parts.into_iter().flatten());
        Ok(())
    }

    /// Adds to `found` the nodes that were not reached and have a predecessor at this depth.
    fn pull(&self, predecessors: &Adjacency, depth: u32, found: &mut Vec<u32>) -> Result<(), KernelError> {
        let parts = map_ranges(self.distances.len(), self.context, |range, cancel_check| {
            let mut found = Vec::new();
            for node in range.filter(|&node| self.distance(node) == UNREACHABLE) {
                let row = predecessors.row(node);
                let at = row.iter().position(|&before| self.distance(before) == depth);
                cancel_check.spend(at.unwrap_or(row.len()))?;
                if at.is_some() {
                    self.distances[node as usize].store(depth + 1, Ordering::Relaxed);
                    found.push(node);
                }
            }
            Ok(found)
        })?;
        found.extend(parts.into_iter().flatten());
        Ok(())
    }

    /// Finds the lowest predecessor of each node that is one level before it.
    pub(super) fn find_predecessors(&self, predecessors: &[AtomicU32]) -> Result<(), KernelError> {
        for_each_range(self.distances.len(), self.context, |range, cancel_check| {
            for node in range {
                let distance = self.distance(node);
                if distance == UNREACHABLE {
                    continue;
                }
                for (arc, next) in self.successors.indexed_row(node) {
                    cancel_check.spend(1)?;
                    let predecessor = &predecessors[next as usize];
                    let is_lower = self.distance(next) == distance + 1 && predecessor.load(Ordering::Relaxed) > node;
                    if is_lower && (self.follows)(node, arc, next) {
                        predecessor.fetch_min(node, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::Direction;

    #[test]
    fn a_search_ends_at_the_level_of_the_last_target() {
        let edges: Vec<[u32; 2]> = (1..1_000).map(|node| [node - 1, node]).collect();
        let graph = CsrGraph::from_edges(1_000, &edges, Direction::Undirected).unwrap();
        for (targets, last) in [(&[500][..], 500), (&[490, 530, 500], 530), (&[500, 0], 0)] {
            let distances = unreachable(1_000);
            let context = RunContext::detached();
            let search = Search {
                successors: graph.successors(),
                predecessors: None,
                follows: |_, _, _| true,
                distances: &distances,
                context: &context,
            };
            search.run(500, Some(targets)).unwrap();
            let reached = |node: u32| search.distance(node) != UNREACHABLE;
            let steps = last.max(500) - last.min(500);
            assert!(reached(500 - steps) && (steps == 500 || !reached(500 - steps - 1)), "{targets:?}");
            assert!(steps == 500 || !reached(500 + steps + 1), "{targets:?}");
        }
    }
}
