//! Shortest paths by the weights of edges on the CPU: delta-stepping, in parallel over sources and within large buckets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rayon::prelude::*;

use super::cpu::Search;
use super::{ShortestPathOutput, UNREACHABLE};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::node_ranges::into_values;
use crate::service::{Buffer, Footprint, KernelError, RunContext};

/// The width of a bucket is the mean weight times this, over the mean degree.
const BUCKET_WIDTH: f64 = 32.0;

/// Nodes of a bucket below which sharing it among threads takes longer than one thread does.
const SEQUENTIAL_NODES: usize = 1 << 10;

/// Nodes of a bucket that a thread takes at a time.
const NODES_PER_TASK: usize = 256;

/// The memory that [`search`] takes for the buckets and levels of the searches that run at the same time.
pub(super) fn workspace(nodes: u64, arcs: u64) -> u64 {
    // Each arc of a bucket can put a node into a bucket.
    let of_search = Footprint::of_array::<Reached>(arcs.saturating_add(nodes));
    of_search.saturating_add(Footprint::of_array::<[u32; 4]>(nodes)).saturating_mul(rayon::current_num_threads() as u64)
}

/// A node, and a distance at which it was reached.
type Reached = (u32, f64);

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
        search.run(source)?;
        let distances = search.into_distances();
        let predecessors = match with_predecessors {
            true => find_predecessors(successors, weights, &distances, source, context)?,
            false => Vec::new(),
        };
        context.advance(1);
        Ok((distances, predecessors))
    };
    let found: Vec<_> = match sources {
        [source] => vec![run(source)?],
        _ => sources.par_iter().map(run).collect::<Result<_, _>>()?,
    };
    let (distances, predecessors): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Ok(ShortestPathOutput {
        distances: Buffer::default(),
        weighted_distances: Some(distances.concat().into()),
        predecessors: predecessors.concat().into(),
    })
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
    context: &'a RunContext<'a>,
}

impl<'a> WeightedSearch<'a> {
    fn new(successors: &'a Adjacency, weights: &'a [f32], width: f64, context: &'a RunContext<'a>) -> Self {
        let nodes = successors.row_offsets().len() - 1;
        let distances = std::iter::repeat_with(|| AtomicU64::new(f64::INFINITY.to_bits())).take(nodes).collect();
        Self { successors, weights, width, distances, context }
    }

    fn into_distances(self) -> Vec<f64> {
        self.distances.into_iter().map(|bits| f64::from_bits(bits.into_inner())).collect()
    }

    fn bucket(&self, distance: f64) -> u64 {
        // Beyond the range of integers all are in the last bucket.
        (distance / self.width) as u64
    }

    /// Finds all distances, bucket by bucket. A node of the bucket that is worked on may come into it again.
    fn run(&self, source: u32) -> Result<(), KernelError> {
        let mut cancel_check = CancelCheck::new(self.context);
        cancel_check.check()?;
        self.distances[source as usize].store(0.0_f64.to_bits(), Ordering::Relaxed);
        let mut buckets = BTreeMap::from([(0, vec![(source, 0.0)])]);
        while let Some((current, mut bucket)) = buckets.pop_first() {
            while !bucket.is_empty() {
                let mut reached = Vec::new();
                if bucket.len() < SEQUENTIAL_NODES {
                    self.relax(&bucket, &mut reached, &mut cancel_check)?;
                } else {
                    self.relax_in_parallel(&bucket, &mut reached)?;
                }
                bucket.clear();
                for node in reached {
                    match self.bucket(node.1) {
                        of_node if of_node == current => bucket.push(node),
                        later => buckets.entry(later).or_default().push(node),
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows the arcs of nodes, and adds to `reached` the nodes whose distances fall.
    fn relax(
        &self,
        nodes: &[Reached],
        reached: &mut Vec<Reached>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        for &(node, distance) in nodes {
            // Otherwise it was reached by a shorter path meanwhile, and is in a bucket with that.
            if self.distances[node as usize].load(Ordering::Relaxed) != distance.to_bits() {
                continue;
            }
            cancel_check.spend(1 + self.successors.degree(node))?;
            for (arc, next) in self.successors.indexed_row(node) {
                let through = distance + f64::from(self.weights[arc]);
                let best = &self.distances[next as usize];
                let is_shorter = || best.fetch_min(through.to_bits(), Ordering::Relaxed) > through.to_bits();
                if best.load(Ordering::Relaxed) > through.to_bits() && is_shorter() {
                    reached.push((next, through));
                }
            }
        }
        Ok(())
    }

    fn relax_in_parallel(&self, nodes: &[Reached], reached: &mut Vec<Reached>) -> Result<(), KernelError> {
        let parts = nodes.par_chunks(NODES_PER_TASK).map(|nodes| {
            let mut cancel_check = CancelCheck::new(self.context);
            let mut reached = Vec::new();
            self.relax(nodes, &mut reached, &mut cancel_check)?;
            Ok(reached)
        });
        let parts = parts.collect::<Result<Vec<_>, KernelError>>()?;
        reached.extend(parts.into_iter().flatten());
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
    let unreachable = || -> Vec<AtomicU32> { distances.iter().map(|_| AtomicU32::new(UNREACHABLE)).collect() };
    let (levels, predecessors) = (unreachable(), unreachable());
    let is_shortest =
        |from: u32, arc: usize, to: u32| distances[from as usize] + f64::from(weights[arc]) == distances[to as usize];
    let search = Search { successors, predecessors: None, follows: is_shortest, distances: &levels, context };
    search.run(source)?;
    search.find_predecessors(&predecessors)?;
    Ok(into_values(predecessors))
}
