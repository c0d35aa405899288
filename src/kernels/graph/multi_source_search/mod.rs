//! Distances from many sources of an unweighted graph, summed by source or by node, for the kernels that need no
//! distance by itself.
//!
//! Then et al., *The more the merrier: efficient multi-source graph traversal* (2014): a node has a bit for each source,
//! so that reading an arc once serves all sources of a pass. In a deep graph, such as a road network, sources reach a node
//! at different levels and share little; there each source has a search of its own.

mod bit_counts;
mod cpu;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod single_source;

pub(super) use self::cpu::search;
use super::csr::{Adjacency, CsrGraph, Direction};
use super::input::GraphInput;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Cost, Footprint, KernelError, RunContext};

/// Some distances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DistanceSum {
    /// How many there are, without those from a node to itself.
    pub(super) count: u64,
    /// Their sum, in arcs.
    pub(super) total: u64,
    /// The largest, in arcs.
    pub(super) largest: u64,
}

impl DistanceSum {
    /// Adds `count` distances of this length, which is not less than those before.
    fn add(&mut self, count: u64, distance: u64) {
        if count > 0 {
            self.count += count;
            self.total += count * distance;
            self.largest = distance;
        }
    }
}

/// What the distances are summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SumBy {
    /// A sum for each source, of its distances to all nodes that it reaches.
    Source,
    /// A sum for each node, of its distances from all sources that reach it.
    Node,
}

/// The arcs that a search follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchGraph<'a> {
    /// The nodes that a search goes to from each node.
    next: &'a Adjacency,
    /// The nodes that it comes from.
    previous: &'a Adjacency,
}

impl<'a> SearchGraph<'a> {
    /// A search that follows the edges.
    ///
    /// # Errors
    /// Those of [`RunContext::check`], while the predecessors are made.
    pub(super) fn along_edges(graph: &'a CsrGraph, context: &RunContext<'_>) -> Result<Self, KernelError> {
        graph.make_predecessors(context)?;
        Ok(Self { next: graph.successors(), previous: graph.predecessors() })
    }

    /// A search that follows the edges against their direction, so that distances are those to the sources.
    ///
    /// # Errors
    /// Those of [`RunContext::check`], while the predecessors are made.
    pub(super) fn against_edges(graph: &'a CsrGraph, context: &RunContext<'_>) -> Result<Self, KernelError> {
        graph.make_predecessors(context)?;
        Ok(Self { next: graph.predecessors(), previous: graph.successors() })
    }

    fn num_nodes(&self) -> usize {
        self.next.row_offsets().len() - 1
    }

    fn num_arcs(&self) -> usize {
        self.next.column_indices().len()
    }
}

/// A backend that runs searches: the context of a run on the CPU, or of one on CUDA.
pub(super) trait Searcher {
    /// Returns the context of the run.
    fn context(&self) -> &RunContext<'_>;

    /// Returns the sums of the distances from `sources`, for each of them or for each node.
    ///
    /// # Errors
    /// Those of [`RunContext::check`] and of the launch context.
    fn search(&mut self, graph: SearchGraph<'_>, sources: &[u32], by: SumBy) -> Result<Vec<DistanceSum>, KernelError>;
}

impl Searcher for &RunContext<'_> {
    fn context(&self) -> &RunContext<'_> {
        self
    }

    fn search(&mut self, graph: SearchGraph<'_>, sources: &[u32], by: SumBy) -> Result<Vec<DistanceSum>, KernelError> {
        search(graph, sources, by, self)
    }
}

#[cfg(feature = "cuda")]
impl Searcher for LaunchContext<'_> {
    fn context(&self) -> &RunContext<'_> {
        self.context()
    }

    fn search(&mut self, graph: SearchGraph<'_>, sources: &[u32], by: SumBy) -> Result<Vec<DistanceSum>, KernelError> {
        cuda::search(graph, sources, by, self)
    }
}

/// Levels after which a search checks whether the graph is deep, and again after as many.
const DEEP_LEVELS: u64 = 32;

/// Returns whether the levels of a search are not about to end: whether the last one, at this distance, has found at least
/// half as many pairs of a source and a node as those so far have on average. In a graph of few levels that has long tails,
/// the last levels are narrow.
fn is_deep(distance: u64, pairs: u64, all_pairs: u64) -> bool {
    2 * distance * pairs >= all_pairs
}

/// Returns the cost of a search from this many sources, with the graph.
pub(super) fn cost(graph: &GraphInput<'_>, sources: u64, by: SumBy) -> Cost {
    let (nodes, arcs) = graph.claimed_size();
    // Most arcs are read at two or three levels of a pass, whose words are seldom in a cache.
    let passes = sources.div_ceil(64);
    let visits = nodes.saturating_add(arcs).saturating_mul(passes).saturating_mul(8);
    Cost {
        bytes: graph.load_bytes().saturating_add(sources.saturating_mul(64)),
        operations: visits.saturating_add(2_000),
        device_memory: device_memory(nodes, arcs, sources, by),
    }
}

/// Returns the host memory of a search from this many sources, with the graph and the sums.
pub(super) fn scratch(graph: &GraphInput<'_>, sources: u64, by: SumBy) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    let predecessors = match graph.direction() {
        Direction::Directed => Footprint::of_array::<u32>(arcs.saturating_add(nodes)),
        Direction::Undirected => 0,
    };
    let sums = match by {
        SumBy::Source => sources,
        SumBy::Node => nodes,
    };
    graph
        .load_memory()
        .saturating_add(predecessors)
        .saturating_add(Footprint::of_array::<DistanceSum>(sums))
        .saturating_add(cpu::workspace(nodes, sources, by))
}

#[cfg(feature = "cuda")]
fn device_memory(nodes: u64, arcs: u64, sources: u64, by: SumBy) -> u64 {
    cuda::device_memory(nodes, arcs, sources, by)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: u64, _: u64, _: u64, _: SumBy) -> u64 {
    0
}
