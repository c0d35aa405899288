//! Counts the cycles of two, three and four nodes through each node, on the CPU and on CUDA.
//!
//! Each cycle is found at its node of highest rank in a [`RankedGraph`]. From there the wedges, paths of two arcs, to
//! each node of lower rank are counted. A cycle of four nodes is a pair of wedges with the same ends, and a cycle of
//! three a wedge whose ends are adjacent: Chiba and Nishizeki, *Arboricity and subgraph listing algorithms* (1985). As
//! all other nodes of the cycle are of lower degree, this takes O(m^1.5) time for `m` edges.
//!
//! In a directed graph wedges that lead to a node and wedges that come from it are counted by themselves. A pair of
//! them may go through the same middle, back and forth along two pairs of opposite arcs. Such walks are taken off at
//! the end.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
#[cfg(feature = "cuda")]
mod numbering_cuda;
mod ranked;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use self::ranked::RankedGraph;
use super::cancel_check::{CancelCheck, INTERVAL};
use super::csr::CsrGraph;
use super::degree::map_nodes;
use super::intersect::for_each_common;
use super::node_ranges::for_each_range;
use crate::service::{Buffer, KernelError, RunContext};

/// Nodes that a thread takes at a time: few, as those of highest rank have many wedges.
const NODES_PER_TASK: usize = 8;

/// How many cycles go through each node.
pub(super) struct CycleCounts {
    /// Of two nodes: pairs of opposite arcs.
    pub(super) two: Buffer<u64>,
    /// Of three nodes.
    pub(super) three: Buffer<u64>,
    /// Of four nodes.
    pub(super) four: Buffer<u64>,
}

/// Counts the cycles of a graph; `directed` if they have to follow the directions of the arcs.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn count(graph: &CsrGraph, directed: bool, context: &RunContext<'_>) -> Result<CycleCounts, KernelError> {
    let ranked = RankedGraph::new(graph, directed, context)?;
    let search = Search::new(&ranked);
    if directed {
        for_each_node(&ranked, context, |node, counters, check| search.count_at::<2>(node, counters, check))?;
        search.subtract_back_and_forth(context)?;
    } else {
        for_each_node(&ranked, context, |node, counters, check| search.count_at::<1>(node, counters, check))?;
    }
    let of_nodes = |counts: &[AtomicU64]| {
        let count = |node: u32| counts[ranked.ranks[node as usize] as usize].load(Ordering::Relaxed);
        map_nodes(ranked.num_nodes(), context, count).map(Buffer::from)
    };
    Ok(CycleCounts { two: of_nodes(&search.two)?, three: of_nodes(&search.three)?, four: of_nodes(&search.four)? })
}

/// Returns how many cycles of four nodes a graph has, without regard to the directions of its arcs.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn count_four(graph: &CsrGraph, context: &RunContext<'_>) -> Result<u128, KernelError> {
    let ranked = RankedGraph::new(graph, false, context)?;
    let sums = for_each_node(&ranked, context, |node, counters: &mut Counters<1>, cancel_check| {
        let mut squares = 0;
        for_each_wedge(&ranked, 0, node, cancel_check, |_, end| {
            // A cycle with each wedge before it.
            squares += u64::from(counters.of(end)[0]);
            counters.add(0, end);
        })?;
        counters.reset();
        Ok(u128::from(squares))
    })?;
    Ok(sums.into_iter().sum())
}

/// Returns the host memory of counting in bytes: the graph by rank, the counts, and the counters of all threads.
pub(super) fn scratch(nodes: u64, arcs: u64) -> u64 {
    let threads = rayon::current_num_threads() as u64;
    let counts = nodes.saturating_mul(3 * 8 + threads.saturating_mul(size_of::<[u32; 2]>() as u64 + 4));
    RankedGraph::bytes(nodes, arcs).saturating_add(counts)
}

/// Returns the device memory of counting in bytes.
#[cfg(feature = "cuda")]
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    cuda::device_memory(nodes, arcs)
}

#[cfg(not(feature = "cuda"))]
pub(super) fn device_memory(_: u64, _: u64) -> u64 {
    0
}

/// Calls `of` with each node, those of high rank first, and counters that are all 0. Returns the sums of the results of
/// each thread.
fn for_each_node<const SIDES: usize, R: Default + std::ops::AddAssign + Send>(
    ranked: &RankedGraph,
    context: &RunContext<'_>,
    of: impl Fn(u32, &mut Counters<SIDES>, &mut CancelCheck<'_>) -> Result<R, KernelError> + Sync,
) -> Result<Vec<R>, KernelError> {
    let num_nodes = ranked.num_nodes();
    let next = AtomicUsize::new(0);
    let threads = rayon::current_num_threads().min(num_nodes.div_ceil(NODES_PER_TASK));
    let thread = |_| {
        let mut counters = Counters::new(num_nodes);
        let mut cancel_check = CancelCheck::new(context);
        let mut sum = R::default();
        loop {
            let first = next.fetch_add(NODES_PER_TASK, Ordering::Relaxed);
            if first >= num_nodes {
                return Ok(sum);
            }
            for index in first..num_nodes.min(first + NODES_PER_TASK) {
                sum += of((num_nodes - 1 - index) as u32, &mut counters, &mut cancel_check)?;
            }
        }
    };
    (0..threads).into_par_iter().map(thread).collect()
}

/// Calls `found` with the middle and the end of each wedge from `node` along the arcs of a side to nodes of lower rank.
fn for_each_wedge(
    ranked: &RankedGraph,
    side: usize,
    node: u32,
    cancel_check: &mut CancelCheck<'_>,
    mut found: impl FnMut(u32, u32),
) -> Result<(), KernelError> {
    let arcs = &ranked.sides[side];
    cancel_check.spend(1)?;
    for &middle in below(arcs.row(node), node) {
        for ends in below(arcs.row(middle), node).chunks(INTERVAL) {
            cancel_check.spend(1 + ends.len())?;
            ends.iter().for_each(|&end| found(middle, end));
        }
    }
    Ok(())
}

/// Returns the nodes of a row that are of lower rank than `node`.
fn below(row: &[u32], node: u32) -> &[u32] {
    &row[..row.partition_point(|&other| other < node)]
}

/// The numbers of wedges between a node and each other one: to it and from it in a directed graph.
struct Counters<const SIDES: usize> {
    counts: Vec<[u32; SIDES]>,
    /// The nodes with counts other than 0.
    ends: Vec<u32>,
}

impl<const SIDES: usize> Counters<SIDES> {
    fn new(num_nodes: usize) -> Self {
        Self { counts: vec![[0; SIDES]; num_nodes], ends: Vec::new() }
    }

    fn of(&self, end: u32) -> [u32; SIDES] {
        self.counts[end as usize]
    }

    fn add(&mut self, side: usize, end: u32) {
        let counts = &mut self.counts[end as usize];
        if *counts == [0; SIDES] {
            self.ends.push(end);
        }
        counts[side] += 1;
    }

    fn reset(&mut self) {
        self.ends.drain(..).for_each(|end| self.counts[end as usize] = [0; SIDES]);
    }
}

/// The graph and the counts of all nodes, by rank.
struct Search<'a> {
    ranked: &'a RankedGraph,
    two: Vec<AtomicU64>,
    three: Vec<AtomicU64>,
    four: Vec<AtomicU64>,
}

impl<'a> Search<'a> {
    fn new(ranked: &'a RankedGraph) -> Self {
        let zeros = || (0..ranked.num_nodes()).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self { ranked, two: zeros(), three: zeros(), four: zeros() }
    }

    /// Counts the cycles of three and four nodes of which `node` is of the highest rank.
    fn count_at<const SIDES: usize>(
        &self,
        node: u32,
        counters: &mut Counters<SIDES>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<u64, KernelError> {
        for side in 0..SIDES {
            for_each_wedge(self.ranked, side, node, cancel_check, |_, end| counters.add(side, end))?;
        }
        self.count_triangles(node, counters, cancel_check)?;
        let mut squares = 0;
        for &end in &counters.ends {
            let counts = counters.of(end).map(u64::from);
            let count = if SIDES == 2 { counts[0] * counts[1] } else { counts[0] * (counts[0] - 1) / 2 };
            add(&self.four, end, count);
            squares += count;
        }
        add(&self.four, node, squares);
        if squares > 0 {
            for side in 0..SIDES {
                for &middle in below(self.ranked.sides[side].row(node), node) {
                    let mut of_middle = 0;
                    for ends in below(self.ranked.sides[side].row(middle), node).chunks(INTERVAL) {
                        cancel_check.spend(ends.len())?;
                        // The wedges that close a cycle with this one: the others to the same end, or those back.
                        let others = |&end: &u32| u64::from(counters.of(end)[SIDES - 1 - side]);
                        let itself = if SIDES == 2 { 0 } else { ends.len() as u64 };
                        of_middle += ends.iter().map(others).sum::<u64>() - itself;
                    }
                    add(&self.four, middle, of_middle);
                }
            }
        }
        counters.reset();
        Ok(squares)
    }

    /// Counts the triangles: the wedges to each node from which an arc closes them.
    fn count_triangles<const SIDES: usize>(
        &self,
        node: u32,
        counters: &Counters<SIDES>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let mut triangles = 0;
        for side in 0..SIDES {
            let neighbours = below(self.ranked.sides[side].row(node), node);
            cancel_check.spend(neighbours.len())?;
            for &other in neighbours {
                let count = u64::from(counters.of(other)[SIDES - 1 - side]);
                add(&self.three, other, count);
                triangles += count;
            }
        }
        // Each has been found at both of its other nodes.
        add(&self.three, node, triangles / 2);
        Ok(())
    }

    /// Counts the cycles of two nodes, and takes walks along two of them with a common node, from another one and back,
    /// off the cycles of four. Of each pair, one end is of higher rank than the common node.
    fn subtract_back_and_forth(&self, context: &RunContext<'_>) -> Result<(), KernelError> {
        let [successors, predecessors] = &self.ranked.sides[..] else { return Ok(()) };
        for_each_range(self.ranked.num_nodes(), context, |nodes, cancel_check| {
            let mut mutual = Vec::new();
            for node in nodes {
                mutual.clear();
                for_each_common([successors.row(node), predecessors.row(node)], cancel_check, |other| {
                    mutual.push(other)
                })?;
                cancel_check.spend(1 + mutual.len())?;
                let all = mutual.len() as u64;
                let lower = below(&mutual, node).len();
                let higher = all - lower as u64;
                add(&self.two, node, all);
                if higher == 0 {
                    continue;
                }
                for (index, &other) in mutual.iter().enumerate() {
                    let walks = if index < lower { higher } else { all - 1 };
                    self.four[other as usize].fetch_sub(walks, Ordering::Relaxed);
                }
                let pairs = higher * (higher - 1) / 2 + higher * lower as u64;
                self.four[node as usize].fetch_sub(2 * pairs, Ordering::Relaxed);
            }
            Ok(())
        })
    }
}

fn add(counts: &[AtomicU64], node: u32, count: u64) {
    if count > 0 {
        counts[node as usize].fetch_add(count, Ordering::Relaxed);
    }
}
