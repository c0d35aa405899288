//! Distances and paths to some nodes alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{ShortestPathInput, ShortestPathOutput, UNREACHABLE};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::service::{Buffer, InvalidInput, KernelError, RunContext};

/// What an input asks for that has target nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Targets<'a> {
    pub(super) nodes: &'a [u32],
    pub(super) with_paths: bool,
    max_path_nodes: u32,
}

impl<'a> Targets<'a> {
    /// Returns the targets of an input that has any.
    pub(super) fn of(input: &'a ShortestPathInput) -> Option<Self> {
        let nodes = input.targets.as_deref()?;
        Some(Self { nodes, with_paths: input.paths, max_path_nodes: input.max_path_nodes })
    }

    /// Adds the paths from each source to the output, if they are requested.
    pub(super) fn finish(&self, output: ShortestPathOutput, paths: Vec<Paths>) -> ShortestPathOutput {
        if self.with_paths { output.with_paths(Paths::join(paths)) } else { output }
    }

    /// The error of paths with more nodes than the input allows.
    pub(super) fn check_path_nodes(&self, path_nodes: u64) -> Result<(), InvalidInput> {
        if path_nodes <= u64::from(self.max_path_nodes) {
            return Ok(());
        }
        let reason = format!("{}, and the paths have more nodes than these together", self.max_path_nodes);
        Err(InvalidInput::new("max_path_nodes", reason))
    }
}

/// Targets that a search has not reached yet.
pub(super) struct Unreached<'a>(Option<&'a [u32]>);

impl<'a> Unreached<'a> {
    /// Those of a search to some nodes, or to all.
    pub(super) fn new(targets: Option<&'a [u32]>) -> Self {
        Self(targets)
    }

    /// Whether all targets are reached, which those of a search to all nodes never are. All calls together ask for each
    /// target once, and each of them for one more.
    pub(super) fn all_reached(&mut self, is_reached: impl Fn(u32) -> bool) -> bool {
        let Some(nodes) = &mut self.0 else { return false };
        while let Some((&last, others)) = nodes.split_last() {
            if !is_reached(last) {
                return false;
            }
            *nodes = others;
        }
        true
    }
}

/// Paths: how many nodes each has, and their nodes, one path after the other.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Paths {
    pub(super) lengths: Vec<u32>,
    pub(super) nodes: Vec<u32>,
}

impl Paths {
    /// Joins the paths from each source, and returns where each begins, with the end, and their nodes.
    fn join(of_sources: Vec<Self>) -> [Buffer<u32>; 2] {
        let lengths: Vec<u32> = of_sources.iter().flat_map(|paths| paths.lengths.iter().copied()).collect();
        let nodes = of_sources.into_iter().map(|paths| paths.nodes).collect::<Vec<_>>().concat();
        [offsets(&lengths).into(), nodes.into()]
    }
}

/// Returns where parts of these lengths begin, and the end.
pub(super) fn offsets(lengths: &[u32]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Follows the lowest predecessors back from targets, on the CPU.
pub(super) struct PathFinder<'a> {
    targets: Targets<'a>,
    predecessors: &'a Adjacency,
    /// The nodes of all paths from all sources.
    path_nodes: AtomicU64,
}

impl<'a> PathFinder<'a> {
    /// Makes the predecessors of the graph; returns `None` if no paths are requested.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(
        targets: Targets<'a>,
        graph: &'a CsrGraph,
        context: &RunContext<'_>,
    ) -> Result<Option<Self>, KernelError> {
        if !targets.with_paths {
            return Ok(None);
        }
        graph.make_predecessors(context)?;
        Ok(Some(Self { targets, predecessors: graph.predecessors(), path_nodes: AtomicU64::new(0) }))
    }

    /// Returns the targets that are reached.
    pub(super) fn reached(&self, is_reached: impl Fn(u32) -> bool) -> Vec<u32> {
        self.targets.nodes.iter().copied().filter(|&target| is_reached(target)).collect()
    }

    /// Returns the path to each target: the nodes from the source on, or none if it is not reached. `level` is how many edges
    /// a shortest path to a node has, or [`UNREACHABLE`]; `follows` whether one takes the arc with this index among
    /// the predecessors, from and to these nodes.
    ///
    /// # Errors
    /// The paths have more nodes than the input allows; those of [`RunContext::check`].
    pub(super) fn paths(
        &self,
        level: impl Fn(u32) -> u32,
        follows: impl Fn(u32, usize, u32) -> bool,
        context: &RunContext<'_>,
    ) -> Result<Paths, KernelError> {
        let mut cancel_check = CancelCheck::new(context);
        let mut paths = Paths::default();
        for &target in self.targets.nodes {
            let edges = level(target);
            let length = if edges == UNREACHABLE { 0 } else { edges + 1 };
            let before = self.path_nodes.fetch_add(length.into(), Ordering::Relaxed);
            self.targets.check_path_nodes(before + u64::from(length))?;
            let start = paths.nodes.len();
            if length > 0 {
                paths.nodes.push(target);
            }
            let mut node = target;
            for level_before in (0..length.saturating_sub(1)).rev() {
                cancel_check.spend(1 + self.predecessors.degree(node))?;
                let is_before =
                    |&(arc, before): &(usize, u32)| level(before) == level_before && follows(before, arc, node);
                let (_, lowest) =
                    self.predecessors.indexed_row(node).find(is_before).expect("a node before each but the first");
                paths.nodes.push(lowest);
                node = lowest;
            }
            paths.nodes[start..].reverse();
            paths.lengths.push(length);
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_asked_for_until_one_is_not_reached() {
        let mut to_some = Unreached::new(Some(&[3, 1, 2]));
        assert!(!to_some.all_reached(|node| node == 2));
        assert!(!to_some.all_reached(|node| node == 1));
        // The others are not asked for again.
        assert!(to_some.all_reached(|node| node == 3));
        assert!(!Unreached::new(None).all_reached(|_| true));
    }
}
