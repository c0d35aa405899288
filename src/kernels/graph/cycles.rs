//! Counts the cycles of two, three and four nodes through each node.
//!
//! Each cycle is found at its node of highest degree, or of highest number among equals. From there the wedges, paths of
//! two arcs, to the node opposite are counted, and a cycle of four nodes is a pair of wedges with the same ends: Chiba and
//! Nishizeki, *Arboricity and subgraph listing algorithms* (1985). As all other nodes of the cycle are of lower degree, this
//! takes O(m^1.5) time for `m` edges.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use super::csr::CsrGraph;
use super::intersect::for_each_common;
use super::oriented::for_each_neighbour;
use crate::service::{KernelError, RunContext};

/// Nodes that a thread takes at a time.
const NODES_PER_TASK: usize = 64;

/// Whether a node is a successor or a predecessor of the node at which cycles are counted.
const SUCCESSOR: u8 = 1;
const PREDECESSOR: u8 = 2;
const BOTH: u8 = SUCCESSOR | PREDECESSOR;

/// How many cycles go through each node.
pub(super) struct CycleCounts {
    /// Of two nodes: pairs of opposite arcs.
    pub(super) two: Vec<u64>,
    /// Of three nodes.
    pub(super) three: Vec<u64>,
    /// Of four nodes.
    pub(super) four: Vec<u64>,
}

/// Counts the cycles of a graph; `directed` if they have to follow the directions of the arcs.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn count(graph: &CsrGraph, directed: bool, context: &RunContext<'_>) -> Result<CycleCounts, KernelError> {
    let degrees = graph.oriented(context)?.degrees();
    graph.make_predecessors(context)?;
    let num_nodes = graph.num_nodes();
    let zeros = || (0..num_nodes).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let search = Search { graph, degrees, two: zeros(), three: zeros(), four: zeros() };
    let next = AtomicUsize::new(0);
    let threads = rayon::current_num_threads().min(num_nodes.div_ceil(NODES_PER_TASK));
    (0..threads).into_par_iter().try_for_each(|_| {
        let mut wedges = Wedges::new(num_nodes);
        let mut cancel_check = CancelCheck::new(context);
        loop {
            let first = next.fetch_add(NODES_PER_TASK, Ordering::Relaxed);
            if first >= num_nodes {
                return Ok::<_, KernelError>(());
            }
            for node in first as u32..num_nodes.min(first + NODES_PER_TASK) as u32 {
                if directed {
                    search.count_directed(node, &mut wedges, &mut cancel_check)?;
                } else {
                    search.count_undirected(node, &mut wedges, &mut cancel_check)?;
                }
            }
        }
    })?;
    let values = |counts: Vec<AtomicU64>| counts.into_iter().map(AtomicU64::into_inner).collect();
    Ok(CycleCounts { two: values(search.two), three: values(search.three), four: values(search.four) })
}

/// Returns the bytes of the counts, and of the counters of all threads.
pub(super) fn scratch(nodes: u64) -> u64 {
    let threads = rayon::current_num_threads() as u64;
    nodes.saturating_mul(3 * 8 + threads.saturating_mul(size_of::<Counters>() as u64 + 4 + 1))
}

/// The wedges between the node at which cycles are counted and another one.
#[derive(Clone, Copy, Default)]
struct Counters {
    /// Those that lead to the other node; all of them in an undirected graph.
    outward: u32,
    /// Those that come from it.
    inward: u32,
    /// Those of which each arc has its opposite.
    mutual: u32,
}

/// The counters of a thread.
struct Wedges {
    counters: Vec<Counters>,
    /// The nodes with counters other than 0.
    ends: Vec<u32>,
    flags: Vec<u8>,
    /// The nodes with flags.
    flagged: Vec<u32>,
}

impl Wedges {
    fn new(num_nodes: usize) -> Self {
        Self {
            counters: vec![Counters::default(); num_nodes],
            ends: Vec::new(),
            flags: vec![0; num_nodes],
            flagged: Vec::new(),
        }
    }

    fn flag(&mut self, node: u32, flag: u8) {
        let flags = &mut self.flags[node as usize];
        if *flags == 0 {
            self.flagged.push(node);
        }
        *flags |= flag;
    }

    /// Returns the counters of a node, to which a wedge is added.
    fn end(&mut self, node: u32) -> &mut Counters {
        let counters = &mut self.counters[node as usize];
        if counters.outward == 0 && counters.inward == 0 {
            self.ends.push(node);
        }
        counters
    }

    fn reset(&mut self) {
        self.ends.drain(..).for_each(|node| self.counters[node as usize] = Counters::default());
        self.flagged.drain(..).for_each(|node| self.flags[node as usize] = 0);
    }
}

/// The graph and the counts of all nodes.
struct Search<'a> {
    graph: &'a CsrGraph,
    degrees: &'a [u32],
    two: Vec<AtomicU64>,
    three: Vec<AtomicU64>,
    four: Vec<AtomicU64>,
}

impl Search<'_> {
    /// Returns whether `other` comes before `node` in the order of degrees.
    fn is_lower(&self, other: u32, node: u32) -> bool {
        (self.degrees[other as usize], other) < (self.degrees[node as usize], node)
    }

    /// Counts the cycles of an undirected graph of which `node` is the highest.
    fn count_undirected(
        &self,
        node: u32,
        wedges: &mut Wedges,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        for_each_neighbour(self.graph, node, cancel_check, |middle| {
            if self.is_lower(middle, node) {
                wedges.flag(middle, BOTH);
            }
        })?;
        let mut triangles = 0;
        for index in 0..wedges.flagged.len() {
            let middle = wedges.flagged[index];
            let mut of_middle = 0;
            for_each_neighbour(self.graph, middle, cancel_check, |end| {
                if self.is_lower(end, node) {
                    wedges.end(end).outward += 1;
                    of_middle += u64::from(wedges.flags[end as usize] != 0);
                }
            })?;
            add(&self.three, middle, of_middle);
            triangles += of_middle;
        }
        // Each has been found from both of its lower nodes.
        add(&self.three, node, triangles / 2);

        let mut squares = 0;
        for &end in &wedges.ends {
            let count = u64::from(wedges.counters[end as usize].outward);
            add(&self.four, end, count * (count - 1) / 2);
            squares += count * (count - 1) / 2;
        }
        add(&self.four, node, squares);
        if squares > 0 {
            for &middle in &wedges.flagged {
                let mut of_middle = 0;
                for_each_neighbour(self.graph, middle, cancel_check, |end| {
                    // A pair with each other wedge to the same end.
                    of_middle += u64::from(wedges.counters[end as usize].outward).saturating_sub(1);
                })?;
                add(&self.four, middle, of_middle);
            }
        }
        wedges.reset();
        Ok(())
    }

    /// Counts the cycles that follow the arcs, of which `node` is the highest.
    fn count_directed(
        &self,
        node: u32,
        wedges: &mut Wedges,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let [successors, predecessors] = [self.graph.successors(), self.graph.predecessors()];
        for (adjacency, flag) in [(successors, SUCCESSOR), (predecessors, PREDECESSOR)] {
            let row = adjacency.row(node);
            cancel_check.spend(1 + row.len())?;
            row.iter().filter(|&&middle| self.is_lower(middle, node)).for_each(|&middle| wedges.flag(middle, flag));
        }
        let (mut pairs, mut triangles) = (0, 0);
        for index in 0..wedges.flagged.len() {
            let middle = wedges.flagged[index];
            let flags = wedges.flags[middle as usize];
            if flags & SUCCESSOR != 0 {
                let row = successors.row(middle);
                cancel_check.spend(1 + row.len())?;
                for &end in row.iter().filter(|&&end| self.is_lower(end, node)) {
                    wedges.end(end).outward += 1;
                    if wedges.flags[end as usize] & PREDECESSOR != 0 {
                        add(&self.three, middle, 1);
                        add(&self.three, end, 1);
                        triangles += 1;
                    }
                }
            }
            if flags & PREDECESSOR != 0 {
                let row = predecessors.row(middle);
                cancel_check.spend(1 + row.len())?;
                row.iter().filter(|&&end| self.is_lower(end, node)).for_each(|&end| wedges.end(end).inward += 1);
            }
            if flags == BOTH {
                add(&self.two, middle, 1);
                pairs += 1;
                for_each_common([successors.row(middle), predecessors.row(middle)], cancel_check, |end| {
                    if self.is_lower(end, node) {
                        wedges.counters[end as usize].mutual += 1;
                    }
                })?;
            }
        }
        add(&self.two, node, pairs);
        add(&self.three, node, triangles);

        let mut squares = 0;
        for &end in &wedges.ends {
            let Counters { outward, inward, mutual } = wedges.counters[end as usize];
            // A wedge there and a wedge back, but not through the same middle.
            let count = u64::from(outward) * u64::from(inward) - u64::from(mutual);
            add(&self.four, end, count);
            squares += count;
        }
        add(&self.four, node, squares);
        if squares > 0 {
            for &middle in &wedges.flagged {
                let of_middle = self.squares_through(middle, node, wedges, cancel_check)?;
                add(&self.four, middle, of_middle);
            }
        }
        wedges.reset();
        Ok(())
    }

    /// Returns the number of cycles of four nodes in which `middle` is next to `node`, the highest.
    fn squares_through(
        &self,
        middle: u32,
        node: u32,
        wedges: &Wedges,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<u64, KernelError> {
        let [successors, predecessors] =
            [self.graph.successors(), self.graph.predecessors()].map(|all| all.row(middle));
        let flags = wedges.flags[middle as usize];
        let mut count = 0;
        if flags & SUCCESSOR != 0 {
            cancel_check.spend(1 + successors.len())?;
            count += successors.iter().map(|&end| u64::from(wedges.counters[end as usize].inward)).sum::<u64>();
        }
        if flags & PREDECESSOR != 0 {
            cancel_check.spend(1 + predecessors.len())?;
            count += predecessors.iter().map(|&end| u64::from(wedges.counters[end as usize].outward)).sum::<u64>();
        }
        if flags == BOTH {
            // Pairs of a wedge there and a wedge back that are both through this middle, counted in both sums.
            for_each_common([successors, predecessors], cancel_check, |end| {
                count -= 2 * u64::from(self.is_lower(end, node));
            })?;
        }
        Ok(count)
    }
}

fn add(counts: &[AtomicU64], node: u32, count: u64) {
    if count > 0 {
        counts[node as usize].fetch_add(count, Ordering::Relaxed);
    }
}
