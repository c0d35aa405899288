//! Shortest paths by the weights of edges on the CPU: delta-stepping, in parallel over sources and within large buckets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::cpu::{Search, unreachable};
use super::targets::{PathFinder, Paths, Targets, Unreached};
use super::{ShortestPathOutput, from_each};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::node_ranges::into_values;
use crate::service::{Footprint, KernelError, RunContext};

/// The width of a bucket is the mean weight times this, over the mean degree.
const BUCKET_WIDTH: f64 = 32.0;

/// Nodes of a bucket below which sharing it among threads takes longer than one thread does.
const SEQUENTIAL_NODES: usize = 1 << 10;

/// Nodes of a bucket that a thread takes at a time.
const NODES_PER_TASK: usize = 256;

/// No bucket: of a node that waits in none.
const NONE: u64 = u64::MAX;

/// The memory that [`search`] takes for the buckets and levels of the searches that run at the same time.
pub(super) fn workspace(nodes: u64, arcs: u64) -> u64 {
    // A node is listed again only in a lower bucket. While the node before it waits in one bucket, its distance varies by
    // less than a bucket's width, so that an arc lists a node in two buckets at most.
    let entries = Footprint::of_array::<[u32; 2]>(arcs).saturating_add(Footprint::of_array::<u32>(nodes));
    // The bucket and the distance of each node, and then the levels.
    let of_nodes = Footprint::of_array::<[u64; 2]>(nodes).saturating_add(Footprint::of_array::<[u32; 4]>(nodes));
    // Buckets double as they grow, and those of one round are apart from those to come.
    entries.saturating_mul(3).saturating_add(of_nodes).saturating_mul(rayon::current_num_threads() as u64)
}

/// Returns the distances and, if requested, the predecessors from each source in a graph with weights that are not negative.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn search(
    graph: &CsrGraph,
    weights: &[f32],
    sources: &[u32],
    with_predecessors: bool,
    context: &RunContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let successors = graph.successors();
    let width = bucket_width(nodes, weights);
    context.set_steps(sources.len() as u64);
    let run = |&source: &u32| -> Result<(Vec<f64>, Vec<u32>), KernelError> {
        let search = WeightedSearch::new(successors, weights, width, context);
        search.run(source, None)?;
        let distances = search.into_distances();
        let predecessors = match with_predecessors {
            true => find_predecessors(successors, weights, &distances, source, context)?,
            false => Vec::new(),
        };
        context.advance(1);
        Ok((distances, predecessors))
    };
    let (distances, predecessors) = from_each(sources, run)?;
    Ok(ShortestPathOutput {
        weighted_distances: Some(distances.concat().into()),
        predecessors: predecessors.concat().into(),
        ..ShortestPathOutput::default()
    })
}

/// Returns the distances and, if requested, the paths from each source to each target in a graph with weights that are not
/// negative.
///
/// # Errors
/// The paths have more nodes than the input allows; those of [`RunContext::check`].
pub(super) fn search_to(
    graph: &CsrGraph,
    weights: &[f32],
    sources: &[u32],
    targets: Targets<'_>,
    context: &RunContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let successors = graph.successors();
    let width = bucket_width(graph.num_nodes(), weights);
    let finder = PathFinder::new(targets, graph, context)?;
    context.set_steps(sources.len() as u64);
    let run = |&source: &u32| -> Result<(Vec<f64>, Paths), KernelError> {
        let search = WeightedSearch::new(successors, weights, width, context);
        search.run(source, Some(targets.nodes))?;
        let distances = search.into_distances();
        let to_targets = targets.nodes.iter().map(|&target| distances[target as usize]).collect();
        let paths = match &finder {
            Some(finder) => find_paths(graph, weights, &distances, source, finder, context)?,
            None => Paths::default(),
        };
        context.advance(1);
        Ok((to_targets, paths))
    };
    let (distances, paths) = from_each(sources, run)?;
    let weighted_distances = Some(distances.concat().into());
    let output = ShortestPathOutput { weighted_distances, ..ShortestPathOutput::default() };
    Ok(targets.finish(output, paths))
}

/// Davidson, Baxter, Garland and Owens, *Work-efficient parallel GPU methods for single-source shortest paths* (2014).
pub(super) fn bucket_width(nodes: usize, weights: &[f32]) -> f64 {
    let sum: f64 = weights.par_chunks(1 << 16).map(|weights| weights.iter().copied().map(f64::from).sum::<f64>()).sum();
    let arcs = weights.len().max(1) as f64;
    let (mean_weight, mean_degree) = (sum / arcs, arcs / nodes as f64);
    // Where all weights are 0, all distances are in the first bucket.
    (mean_weight * BUCKET_WIDTH / mean_degree.max(1.0)).max(f64::MIN_POSITIVE)
}

/// The search from one source.
struct WeightedSearch<'a> {
    successors: &'a Adjacency,
    weights: &'a [f32],
    width: f64,
    /// The bits of the least distance found so far. Those of numbers that are not negative are ordered as the numbers are.
    distances: Vec<AtomicU64>,
    /// The bucket in which each node waits, or [`NONE`]. Entries of the node in other buckets have no meaning.
    waiting: Vec<AtomicU64>,
    context: &'a RunContext<'a>,
}

impl<'a> WeightedSearch<'a> {
    fn new(successors: &'a Adjacency, weights: &'a [f32], width: f64, context: &'a RunContext<'a>) -> Self {
        let nodes = successors.row_offsets().len() - 1;
        let all = |value| std::iter::repeat_with(move || AtomicU64::new(value)).take(nodes).collect();
        let (distances, waiting) = (all(f64::INFINITY.to_bits()), all(NONE));
        Self { successors, weights, width, distances, waiting, context }
    }

    fn into_distances(self) -> Vec<f64> {
        self.distances.into_iter().map(|bits| f64::from_bits(bits.into_inner())).collect()
    }

    fn distance(&self, node: u32) -> f64 {
        f64::from_bits(self.distances[node as usize].load(Ordering::Relaxed))
    }

    fn bucket(&self, distance: f64) -> u64 {
        // Beyond the range of integers all are in the last bucket.
        ((distance / self.width) as u64).min(NONE - 1)
    }

    /// Finds all distances, bucket by bucket, or those up to the bucket in which the last of the targets is. A node of the
    /// bucket that is worked on may come into it again. Returns how often nodes were listed in buckets.
    ///
    /// Distances beyond that bucket need not be the shortest.
    fn run(&self, source: u32, targets: Option<&[u32]>) -> Result<usize, KernelError> {
        let mut cancel_check = CancelCheck::new(self.context);
        cancel_check.check()?;
        self.distances[source as usize].store(0.0_f64.to_bits(), Ordering::Relaxed);
        self.waiting[source as usize].store(0, Ordering::Relaxed);
        let mut buckets = BTreeMap::from([(0, vec![source])]);
        let mut targets = Unreached::new(targets);
        let mut listings = 1;
        while let Some((current, mut bucket)) = buckets.pop_first() {
            while !bucket.is_empty() {
                let mut listed = Vec::new();
                if bucket.len() < SEQUENTIAL_NODES {
                    self.visit(current, &bucket, &mut listed, &mut cancel_check)?;
                } else {
                    self.visit_in_parallel(current, &bucket, &mut listed)?;
                }
                bucket.clear();
                listings += listed.len();
                for (of_node, node) in listed {
                    match of_node == current {
                        true => bucket.push(node),
                        false => buckets.entry(of_node).or_insert_with(Vec::new).push(node),
                    }
                }
            }
            // No distance in this bucket falls any more.
            if targets.all_reached(|target| self.bucket(self.distance(target)) <= current) {
                break;
            }
        }
        Ok(listings)
    }

    /// Follows the arcs of the nodes that wait in this bucket, and adds to `listed` the nodes whose distances fall, with the
    /// bucket in which they wait from now on.
    fn visit(
        &self,
        current: u64,
        nodes: &[u32],
        listed: &mut Vec<(u64, u32)>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        for &node in nodes {
            // Before the distance is read: if that falls from now on, the node is listed again. A distance that fell
            // without the node being listed was written before this, which acquires it.
            let waiting = &self.waiting[node as usize];
            if waiting.compare_exchange(current, NONE, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let distance = self.distance(node);
            cancel_check.spend(1 + self.successors.degree(node))?;
            for (arc, next) in self.successors.indexed_row(node) {
                let through = distance + f64::from(self.weights[arc]);
                let best = &self.distances[next as usize];
                let is_shorter = || best.fetch_min(through.to_bits(), Ordering::Relaxed) > through.to_bits();
                if best.load(Ordering::Relaxed) > through.to_bits() && is_shorter() {
                    let bucket = self.bucket(through);
                    if self.waiting[next as usize].fetch_min(bucket, Ordering::AcqRel) > bucket {
                        listed.push((bucket, next));
                    }
                }
            }
        }
        Ok(())
    }

    fn visit_in_parallel(&self, current: u64, nodes: &[u32], listed: &mut Vec<(u64, u32)>) -> Result<(), KernelError> {
        let parts = nodes.par_chunks(NODES_PER_TASK).map(|nodes| {
            let mut cancel_check = CancelCheck::new(self.context);
            let mut listed = Vec::new();
            self.visit(current, nodes, &mut listed, &mut cancel_check)?;
            Ok(listed)
        });
        let parts = parts.collect::<Result<Vec<_>, KernelError>>()?;
        listed.extend(parts.into_iter().flatten());
        Ok(())
    }
}

/// Returns the predecessors from one source: among the shortest paths to a node, those with the fewest edges count.
///
/// An arc of weight 0 leads both ways between nodes of equal distances, so distances alone could make a circle of
/// predecessors. Levels of a search that follows only arcs of shortest paths cannot.
fn find_predecessors(
    successors: &Adjacency,
    weights: &[f32],
    distances: &[f64],
    source: u32,
    context: &RunContext<'_>,
) -> Result<Vec<u32>, KernelError> {
    let (levels, predecessors) = (unreachable(distances.len()), unreachable(distances.len()));
    let is_shortest =
        |from: u32, arc: usize, to: u32| distances[from as usize] + f64::from(weights[arc]) == distances[to as usize];
    let search = Search { successors, predecessors: None, follows: is_shortest, distances: &levels, context };
    search.run(source, None)?;
    search.find_predecessors(&predecessors)?;
    Ok(into_values(predecessors))
}

/// Returns the paths from one source along the predecessors of [`find_predecessors`].
///
/// A distance that is not the shortest is longer than that of any target, so that no arc of a path leads from such a node.
fn find_paths(
    graph: &CsrGraph,
    weights: &[f32],
    distances: &[f64],
    source: u32,
    finder: &PathFinder<'_>,
    context: &RunContext<'_>,
) -> Result<Paths, KernelError> {
    let levels = unreachable(distances.len());
    let is_shortest =
        |from: u32, weight: f32, to: u32| distances[from as usize] + f64::from(weight) == distances[to as usize];
    let follows = |from: u32, arc: usize, to: u32| is_shortest(from, weights[arc], to);
    let search = Search { successors: graph.successors(), predecessors: None, follows, distances: &levels, context };
    let reached = finder.reached(|target| distances[target as usize].is_finite());
    search.run(source, Some(&reached))?;
    let back = graph.predecessors().weights().expect("the weights of a graph that has them");
    finder.paths(|node| search.distance(node), |from, arc, to| is_shortest(from, back[arc], to), context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::Direction;

    /// The distance of a hub falls with each step of a chain, and with it those of the nodes beyond the hub.
    #[test]
    fn nodes_whose_distances_fall_often_are_listed_at_most_twice_for_each_arc() {
        let (steps, leaves) = (300_u32, 300_u32);
        let (hub, nodes) = (steps, (steps + 1 + leaves) as usize);
        let chain = (1..steps).map(|step| ([step - 1, step], 1.0));
        let to_hub = (0..steps).map(|step| ([step, hub], 1e6 - 1e3 * step as f32));
        let beyond = (0..leaves).map(|leaf| ([hub, hub + 1 + leaf], 1e8));
        let (edges, weights): (Vec<_>, Vec<f32>) = chain.chain(to_hub).chain(beyond).unzip();
        let graph = CsrGraph::from_weighted_edges(nodes, &edges, &weights, Direction::Directed).unwrap();
        let context = RunContext::detached();
        let hub_distance = f64::from(steps - 1) + 1e6 - 1e3 * f64::from(steps - 1);
        // Narrow buckets; all but the leaves in one, where the hub is visited 300 times; and all in one.
        for width in [1.0, 2e6, 1e9] {
            let search =
                WeightedSearch::new(graph.successors(), graph.successors().weights().unwrap(), width, &context);
            let listings = search.run(0, None).unwrap();
            assert!(width == 1e9 || listings <= 2 * edges.len() + nodes, "{listings} with a width of {width}");
            let distances = search.into_distances();
            assert_eq!(distances[hub as usize], hub_distance);
            assert!(distances[hub as usize + 1..].iter().all(|&distance| distance == hub_distance + 1e8));
        }
    }

    #[test]
    fn a_search_ends_at_the_bucket_of_the_last_target() {
        let edges: Vec<[u32; 2]> = (1..1_000).map(|node| [node - 1, node]).collect();
        let graph = CsrGraph::from_weighted_edges(1_000, &edges, &[1.0; 999], Direction::Directed).unwrap();
        let context = RunContext::detached();
        let search = WeightedSearch::new(graph.successors(), graph.successors().weights().unwrap(), 10.0, &context);
        search.run(0, Some(&[17, 342, 200])).unwrap();
        assert!((0..350).all(|node| search.distance(node) == f64::from(node)));
        assert!(search.distance(351).is_infinite());
    }
}
