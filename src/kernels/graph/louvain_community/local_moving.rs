//! Moves the nodes of a level between communities.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::level_graph::LevelGraph;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::modularity_score::CommunityCounts;
use crate::kernels::graph::node_chunks::map_chunks;
use crate::kernels::graph::node_order::NodeOrder;
use crate::kernels::graph::node_ranges::map_ranges;
use crate::kernels::graph::weight_table::WeightTable;
use crate::random::SplitMix64;
use crate::service::{KernelError, RunContext};

/// The groups of nodes of a sweep, which move one after the other; a power of two.
const GROUPS: usize = 16;
/// Up to so many nodes are moved one by one: the nodes of a group choose without regard to each other.
const FEW_NODES: usize = 64;

/// The options of the method.
pub(super) struct Limits {
    pub(super) resolution: f64,
    pub(super) max_sweeps: u32,
    pub(super) min_gain: f64,
    pub(super) seed: u64,
}

/// What a level ends with.
pub(super) struct Moved {
    /// The community of each node of the level.
    pub(super) communities: Vec<u32>,
    /// By how much the modularity has risen.
    pub(super) gain: f64,
    pub(super) sweeps: u32,
}

/// Moves the nodes of a level in sweeps, from the communities that they have, until a sweep gains too little. Communities
/// are below the number of nodes.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn move_nodes(
    graph: &LevelGraph,
    start: &[u32],
    limits: &Limits,
    level: u32,
    context: &RunContext<'_>,
) -> Result<Moved, KernelError> {
    let moving = LocalMoving::new(graph, start, limits.resolution);
    let random = SplitMix64::new(limits.seed ^ u64::from(level) << 32);
    let mut communities = start.to_vec();
    let modularity_before = moving.modularity(context)?;
    let (mut modularity, mut sweeps) = (modularity_before, 0);
    while sweeps < limits.max_sweeps {
        let has_moved = moving.sweep(NodeOrder { seed: random.next() }, context)?;
        sweeps += 1;
        if !has_moved {
            break;
        }
        let gain = moving.modularity(context)? - modularity;
        if gain <= 0.0 {
            break;
        }
        modularity += gain;
        communities = moving.communities();
        if gain < limits.min_gain {
            break;
        }
    }
    Ok(Moved { communities, gain: modularity - modularity_before, sweeps })
}

/// The communities of a level, which threads change.
struct LocalMoving<'a> {
    graph: &'a LevelGraph,
    resolution: f64,
    community: Vec<AtomicU32>,
    /// The community that a node has chosen, which is its own unless it is about to move.
    target: Vec<AtomicU32>,
    /// The sum of the degrees of the nodes of each community.
    degree_sum: Vec<AtomicU64>,
    /// Whether a neighbour has moved since the node chose.
    is_active: Vec<AtomicBool>,
}

fn load(values: &[AtomicU32], index: u32) -> u32 {
    values[index as usize].load(Ordering::Relaxed)
}

impl<'a> LocalMoving<'a> {
    fn new(graph: &'a LevelGraph, start: &[u32], resolution: f64) -> Self {
        let to_atomics = |values: &[u32]| values.iter().copied().map(AtomicU32::new).collect();
        let mut degree_sum = vec![0; start.len()];
        for (&community, degree) in start.iter().zip(&graph.degrees) {
            degree_sum[community as usize] += degree;
        }
        Self {
            graph,
            resolution,
            community: to_atomics(start),
            target: to_atomics(start),
            degree_sum: degree_sum.into_iter().map(AtomicU64::new).collect(),
            // Nodes without neighbours never move.
            is_active: (0..start.len() as u32).map(|node| AtomicBool::new(graph.row_len(node) > 0)).collect(),
        }
    }

    /// Returns the sum of the degrees of the nodes of a community.
    fn degree_sum(&self, community: u32) -> u64 {
        self.degree_sum[community as usize].load(Ordering::Relaxed)
    }

    fn communities(&self) -> Vec<u32> {
        self.community.iter().map(|community| community.load(Ordering::Relaxed)).collect()
    }

    /// Computes the modularity from counts of all arcs.
    fn modularity(&self, context: &RunContext<'_>) -> Result<f64, KernelError> {
        let of_ranges = map_ranges(self.graph.num_nodes(), context, |range, cancel_check| {
            let (mut internal_arcs, mut degree_products) = (0, 0);
            for node in range {
                cancel_check.spend(self.graph.row_len(node))?;
                let community = load(&self.community, node);
                let is_internal = |other| load(&self.community, other) == community;
                let internal = self.graph.row(node).filter(|&(other, _)| is_internal(other));
                internal_arcs += internal.map(|(_, weight)| weight).sum::<u64>();
                degree_products += u128::from(self.degree_sum(node)).pow(2);
            }
            Ok((internal_arcs, degree_products))
        })?;
        let (internal_arcs, degree_products) =
            of_ranges.into_iter().fold((self.graph.inner_arcs, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let counts = CommunityCounts { arcs: self.graph.all_arcs, internal_arcs, degree_products };
        Ok(counts.modularity(self.resolution))
    }

    /// Moves the active nodes, group by group. Returns whether any has moved.
    fn sweep(&self, order: NodeOrder, context: &RunContext<'_>) -> Result<bool, KernelError> {
        let mut has_moved = false;
        for group in self.active_groups(order, context)? {
            let of_chunks = map_chunks(&self.graph.offsets, &group, context, |nodes, cancel_check| {
                self.choose_all(nodes, cancel_check)
            })?;
            let moving = of_chunks.concat();
            has_moved |= !moving.is_empty();
            map_chunks(&self.graph.offsets, &moving, context, |nodes, cancel_check| {
                nodes.iter().try_for_each(|&node| {
                    cancel_check.spend(self.graph.row_len(node))?;
                    self.apply(node);
                    Ok(())
                })
            })?;
        }
        Ok(has_moved)
    }

    /// Returns the active nodes by group: each by itself if they are few, and otherwise by their keys.
    fn active_groups(&self, order: NodeOrder, context: &RunContext<'_>) -> Result<Vec<Vec<u32>>, KernelError> {
        let mut cancel_check = CancelCheck::new(context);
        let mut active = Vec::new();
        for (node, is_active) in (0..).zip(&self.is_active) {
            cancel_check.spend(1)?;
            if is_active.load(Ordering::Relaxed) {
                active.push(node);
            }
        }
        if active.len() <= FEW_NODES {
            active.sort_unstable_by_key(|&node| order.key(node));
            return Ok(active.into_iter().map(|node| vec![node]).collect());
        }
        let mut groups = vec![Vec::new(); GROUPS];
        for node in active {
            cancel_check.spend(1)?;
            groups[(order.key(node) >> (u32::BITS - GROUPS.ilog2())) as usize].push(node);
        }
        Ok(groups)
    }

    /// Lets nodes choose their communities. Returns those that leave theirs.
    fn choose_all(&self, nodes: &[u32], cancel_check: &mut CancelCheck<'_>) -> Result<Vec<u32>, KernelError> {
        let mut weights = WeightTable::default();
        let mut moving = Vec::new();
        for &node in nodes {
            cancel_check.spend(2 * self.graph.row_len(node))?;
            self.is_active[node as usize].store(false, Ordering::Relaxed);
            let target = self.choose(node, &mut weights);
            if target != load(&self.community, node) {
                self.target[node as usize].store(target, Ordering::Relaxed);
                moving.push(node);
            }
        }
        Ok(moving)
    }

    /// Returns the community of a neighbour for which the modularity is highest with the node in it: its own if no other is
    /// better, and otherwise the lowest of the best.
    fn choose(&self, node: u32, weights: &mut WeightTable<u64>) -> u32 {
        let own = load(&self.community, node);
        let degree = self.graph.degrees[node as usize];
        weights.clear(self.graph.row_len(node));
        weights.add(own, 0);
        for (other, weight) in self.graph.row(node) {
            weights.add(load(&self.community, other), weight);
        }
        let expected_per_degree = self.resolution * degree as f64 / self.graph.all_arcs.max(1) as f64;
        // The modularity with the node in a community, but for a factor and a term that are the same for all.
        let score = |community: u32, weight: u64| {
            let others = self.degree_sum(community) - if community == own { degree } else { 0 };
            weight as f64 - expected_per_degree * others as f64
        };
        let (mut best, mut best_score) = (own, f64::NEG_INFINITY);
        for (community, weight) in weights.iter() {
            let score = score(community, weight);
            // The own community comes first.
            if score > best_score || (score == best_score && best != own && community < best) {
                (best, best_score) = (community, score);
            }
        }
        best
    }

    /// Moves a node to the community that it has chosen.
    fn apply(&self, node: u32) {
        let (from, to) = (load(&self.community, node), load(&self.target, node));
        let degree = self.graph.degrees[node as usize];
        self.degree_sum[from as usize].fetch_sub(degree, Ordering::Relaxed);
        self.degree_sum[to as usize].fetch_add(degree, Ordering::Relaxed);
        self.community[node as usize].store(to, Ordering::Relaxed);
        for (other, _) in self.graph.row(node) {
            // Where the neighbour will be: it may be moving at the same time, on another thread.
            if load(&self.target, other) != to {
                self.is_active[other as usize].store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::arc_units::ArcUnits;
    use crate::kernels::graph::csr::{CsrGraph, Direction};

    #[test]
    fn neighbours_that_move_together_are_active_alike_in_any_order() {
        // A path of four nodes, of which the two in the middle move to the same community.
        let edges = [[0, 1], [1, 2], [2, 3]];
        let graph = CsrGraph::from_edges(4, &edges, Direction::Undirected).unwrap();
        let level = LevelGraph::first(&graph, ArcUnits::new(&graph, true), &RunContext::detached()).unwrap();
        for order in [[1, 2], [2, 1]] {
            let moving = LocalMoving::new(&level, &[0, 1, 2, 3], 1.0);
            moving.is_active.iter().for_each(|is_active| is_active.store(false, Ordering::Relaxed));
            order.iter().for_each(|&node| moving.target[node as usize].store(0, Ordering::Relaxed));
            order.iter().for_each(|&node| moving.apply(node));
            let is_active: Vec<bool> = moving.is_active.iter().map(|flag| flag.load(Ordering::Relaxed)).collect();
            assert_eq!(is_active, [false, false, false, true]);
            assert_eq!(moving.communities(), [0, 0, 0, 3]);
        }
    }
}
