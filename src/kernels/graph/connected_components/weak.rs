//! Weak components on the CPU: Afforest, in parallel.
//!
//! Each node has a parent that is not higher than itself, which makes a forest: every tree is a part of a component, and
//! its root is its lowest node. An edge joins two trees by setting the parent of the higher root to the lower one. The first
//! two arcs of each node already join most of a large component. The nodes of that component are then skipped, if the graph
//! is undirected: an edge to a node outside of it is joined from the other end.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::kernels::graph::node_ranges::{for_each_range, into_values};
use crate::random::SplitMix64;
use crate::service::{Footprint, KernelError, RunContext};

/// Arcs of each node that are joined before the largest component is guessed.
const SAMPLED_ARCS: usize = 2;

/// Nodes from which the largest component is guessed.
const SAMPLED_NODES: usize = 1024;

/// The memory that [`lowest_nodes`] and the numbering take.
pub(in crate::kernels::graph) fn workspace(nodes: u64) -> u64 {
    Footprint::of_array::<[u32; 3]>(nodes)
}

/// Returns the lowest node of the weak component of each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn lowest_nodes(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let nodes = graph.num_nodes();
    let successors = graph.successors();
    let forest = Forest::new(nodes);
    for_each_range(nodes, context, |range, _| {
        for node in range {
            successors.row(node).iter().take(SAMPLED_ARCS).for_each(|&other| forest.join(node, other));
        }
        Ok(())
    })?;
    forest.compress(context)?;
    let largest = (graph.direction() == Direction::Undirected).then(|| forest.most_frequent_root());
    for_each_range(nodes, context, |range, cancel_check| {
        for node in range {
            let arcs = successors.row(node).get(SAMPLED_ARCS..).unwrap_or_default();
            if arcs.is_empty() || largest.is_some_and(|largest| forest.root(node) == forest.root(largest)) {
                continue;
            }
            for &other in arcs {
                cancel_check.spend(1)?;
                forest.join(node, other);
            }
        }
        Ok(())
    })?;
    forest.compress(context)?;
    Ok(into_values(forest.parents))
}

/// Trees of nodes that threads join at the same time.
///
/// A parent is never higher than its node, and only ever replaced by a lower node of the same component, so threads need not
/// see each other's writes in any order.
struct Forest {
    parents: Vec<AtomicU32>,
}

impl Forest {
    fn new(nodes: usize) -> Self {
        Self { parents: (0..nodes as u32).map(AtomicU32::new).collect() }
    }

    fn parent(&self, node: u32) -> u32 {
        self.parents[node as usize].load(Ordering::Relaxed)
    }

    /// Returns the root of a node, and halves the path to it.
    fn root(&self, mut node: u32) -> u32 {
        let mut parent = self.parent(node);
        loop {
            let grandparent = self.parent(parent);
            if grandparent == parent {
                return parent;
            }
            self.parents[node as usize].store(grandparent, Ordering::Relaxed);
            (node, parent) = (parent, grandparent);
        }
    }

    /// Joins the trees of two nodes.
    fn join(&self, a: u32, b: u32) {
        let (mut a, mut b) = (self.root(a), self.root(b));
        while a != b {
            let (low, high) = (a.min(b), a.max(b));
            match self.parents[high as usize].compare_exchange(high, low, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                // Another thread has joined the higher root to a third one.
                Err(parent) => (a, b) = (low, self.root(parent)),
            }
        }
    }

    /// Makes every parent the root.
    fn compress(&self, context: &RunContext<'_>) -> Result<(), KernelError> {
        for_each_range(self.parents.len(), context, |range, _| {
            for node in range {
                self.parents[node as usize].store(self.root(node), Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Returns the root that most of some sampled nodes have.
    fn most_frequent_root(&self) -> u32 {
        let random = SplitMix64::new(0);
        let last = self.parents.len() as u64 - 1;
        let mut roots: Vec<u32> = (0..SAMPLED_NODES).map(|_| self.parent(random.up_to(last) as u32)).collect();
        roots.sort_unstable();
        let most = roots.chunk_by(|a, b| a == b).max_by_key(|equal| equal.len());
        most.expect("there are samples")[0]
    }
}
