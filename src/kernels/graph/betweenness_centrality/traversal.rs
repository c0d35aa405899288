//! One traversal: the two halves of Brandes' algorithm, for several sources at a time.
//!
//! No distances are stored. A neighbour is recognised by whether its value is zero:
//! going forward a node that is not reached can only be next to the last level, and going back a node can only lead to
//! levels that are done or to nodes whose value is not written yet.

use super::lanes::{LaneSet, Rows, add, merge, nonzero, only, total};
use super::pivots::Pivots;
use crate::kernels::graph::cancel_check::{CancelCheck, INTERVAL};
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::service::{InvalidInput, KernelError};

/// How much cheaper a neighbour is to pull from than to push to; what is measured differs little from 2 to 8.
const PULL_GAIN: usize = 4;

/// A node that one or more lanes reached at the same level.
#[derive(Debug, Clone, Copy)]
struct Visit {
    node: u32,
    lanes: LaneSet,
}

/// Where the lanes are with a node.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Lanes that reached it at an earlier level.
    reached: LaneSet,
    /// Lanes that a push has brought to it at the present level.
    arriving: LaneSet,
}

/// The state of a traversal from up to `LANES` sources, reused by the next.
pub(super) struct Traversal<'g, const LANES: usize> {
    graph: &'g CsrGraph,
    /// Forward: the number of shortest paths from the lane's source, 0 where it has not arrived.
    /// Back: once a node's level is done, what `shares` will hold.
    paths: Rows<LANES>,
    /// Back: (1 + dependency) / paths of each node whose level is done, else 0.
    /// Forward: sums pulled at the present level, else 0.
    shares: Rows<LANES>,
    progress: Vec<Progress>,
    /// Visits in the order of levels.
    visits: Vec<Visit>,
    /// Where in `visits` each level starts.
    levels: Vec<usize>,
    /// Nodes that a push came to first at the present level.
    arrivals: Vec<u32>,
    /// Nodes that some lane had not reached when they were last counted.
    open: Vec<u32>,
}

impl<'g, const LANES: usize> Traversal<'g, LANES> {
    pub(super) fn new(graph: &'g CsrGraph) -> Self {
        let num_nodes = graph.num_nodes();
        Self {
            graph,
            paths: Rows::new(num_nodes),
            shares: Rows::new(num_nodes),
            progress: vec![Progress::default(); num_nodes],
            visits: Vec::new(),
            levels: Vec::new(),
            arrivals: vec![0; num_nodes + 1],
            open: Vec::new(),
        }
    }

    /// Adds the dependencies of one batch of sources to `sums`. Returns how many lanes a visit served on average.
    pub(super) fn run(
        &mut self,
        pivots: &Pivots,
        sources: std::ops::Range<usize>,
        sums: &mut [f64],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<f64, KernelError> {
        cancel_check.check()?;
        let (first, last) = (pivots.node(sources.start), pivots.node(sources.end - 1));
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let most = self.count_paths(pivots, sources, cancel_check)?;
                if most == f64::INFINITY {
                    let reason = format!("f64 cannot count the shortest paths from one of the nodes {first} to {last}");
                    return Err(InvalidInput::new("edges", reason).into());
                }
                self.accumulate(sums, cancel_check)?;
                self.reset(cancel_check)
            },
        )
    }

    /// The forward half: levels, visits and numbers of paths. Returns the largest number.
    #[inline(always)]
    fn count_paths(
        &mut self,
        pivots: &Pivots,
        sources: std::ops::Range<usize>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<f64, KernelError> {
        let Self { graph, paths, shares, progress, visits, levels, arrivals, open } = self;
        let (successors, predecessors) = (graph.successors(), graph.predecessors());
        let (paths, shares) = (paths.rows(), shares.rows());
        let every_lane = LaneSet::MAX >> (LaneSet::BITS as usize - sources.len());
        for (lane, index) in sources.enumerate() {
            let node = pivots.node(index);
            paths[node as usize][lane] = 1.0;
            progress[node as usize].reached = 1 << lane;
            visits.push(Visit { node, lanes: 1 << lane });
        }
        let mut open_arcs = graph.num_arcs();
        let mut counted = false;
        let mut most = [0.0_f64; LANES];
        let mut start = 0;
        while start < visits.len() {
            let end = visits.len();
            levels.push(start);
            cancel_check.spend(end - start)?;
            let frontier_arcs: usize = visits[start..end].iter().map(|visit| successors.degree(visit.node)).sum();
            if frontier_arcs > open_arcs / PULL_GAIN {
                if !counted {
                    counted = true;
                    open.clear();
                    open.extend(0..graph.num_nodes() as u32);
                }
                cancel_check.spend(open.len())?;
                open_arcs = 0;
                open.retain(|&node| {
                    let keep = progress[node as usize].reached != every_lane;
                    open_arcs += if keep { predecessors.degree(node) } else { 0 };
                    keep
                });
                for &node in &*open {
                    let sum = sum_rows(paths, predecessors, node, cancel_check)?;
                    let lanes = nonzero(&sum) & every_lane & !progress[node as usize].reached;
                    if lanes != 0 {
                        visits.push(Visit { node, lanes });
                        shares[node as usize] = sum;
                    }
                }
                for visit in &visits[end..] {
                    let node = visit.node as usize;
                    merge(&mut paths[node], &shares[node], visit.lanes);
                    shares[node] = [0.0; LANES];
                }
            } else {
                let mut arrived = 0;
                for &Visit { node, lanes } in &visits[start..end] {
                    let row = only(&paths[node as usize], lanes);
                    for neighbours in successors.row(node).chunks(INTERVAL) {
                        cancel_check.spend(neighbours.len() + 1)?;
                        for &neighbour in neighbours {
                            let target = neighbour as usize;
                            let Progress { reached, arriving } = &mut progress[target];
                            let new = lanes & !*reached;
                            // No branch for the first arrival: it comes too often to be guessed.
                            arrivals[arrived] = neighbour;
                            arrived += usize::from(new != 0 && *arriving == 0);
                            *arriving |= new;
                            if LANES == 1 || new != 0 {
                                add(&mut paths[target], &row, new);
                            }
                        }
                    }
                }
                visits.extend(arrivals[..arrived].iter().map(|&node| {
                    let lanes = std::mem::take(&mut progress[node as usize].arriving);
                    Visit { node, lanes }
                }));
            }
            for visit in &visits[end..] {
                let node = visit.node as usize;
                progress[node].reached |= visit.lanes;
                for (most, &paths) in most.iter_mut().zip(&paths[node]) {
                    *most = if paths > *most { paths } else { *most };
                }
            }
            start = end;
        }
        levels.push(start);
        Ok(most.into_iter().fold(0.0, f64::max))
    }

    /// The backward half: dependencies from the last level to the first after the sources.
    #[inline(always)]
    fn accumulate(&mut self, sums: &mut [f64], cancel_check: &mut CancelCheck<'_>) -> Result<(), KernelError> {
        let successors = self.graph.successors();
        let (paths, shares) = (self.paths.rows(), self.shares.rows());
        let mut deepest = true;
        for bounds in self.levels.windows(2).skip(1).rev() {
            let level = &self.visits[bounds[0]..bounds[1]];
            for &Visit { node, lanes } in level {
                // With s the sum of the successors' shares, the dependency is paths * s and the share 1 / paths + s.
                let sum = if deepest { [0.0; LANES] } else { sum_rows(shares, successors, node, cancel_check)? };
                let paths = &mut paths[node as usize];
                let share: [f64; LANES] = std::array::from_fn(|lane| 1.0 / paths[lane] + sum[lane]);
                let dependency: [f64; LANES] = std::array::from_fn(|lane| paths[lane] * sum[lane]);
                sums[node as usize] += total(only(&dependency, lanes));
                merge(paths, &share, lanes);
            }
            deepest = false;
            // Only now, so that the nodes of this level have read nothing of each other.
            for &Visit { node, lanes } in level {
                merge(&mut shares[node as usize], &paths[node as usize], lanes);
            }
        }
        Ok(())
    }

    /// Back to zero, touching only what was visited. Returns how many lanes a visit served on average.
    #[inline(always)]
    fn reset(&mut self, cancel_check: &mut CancelCheck<'_>) -> Result<f64, KernelError> {
        let (paths, shares) = (self.paths.rows(), self.shares.rows());
        let mut served = 0;
        for visits in self.visits.chunks(INTERVAL) {
            cancel_check.spend(visits.len())?;
            for &Visit { node, lanes } in visits {
                let node = node as usize;
                paths[node] = [0.0; LANES];
                shares[node] = [0.0; LANES];
                self.progress[node].reached = 0;
                served += lanes.count_ones() as usize;
            }
        }
        let average = served as f64 / self.visits.len() as f64;
        self.visits.clear();
        self.levels.clear();
        Ok(average)
    }
}

/// Sum of the rows of `node`'s neighbours.
#[inline(always)]
fn sum_rows<const LANES: usize>(
    rows: &[[f64; LANES]],
    adjacency: &Adjacency,
    node: u32,
    cancel_check: &mut CancelCheck<'_>,
) -> Result<[f64; LANES], KernelError> {
    let mut sum = [0.0; LANES];
    for neighbours in adjacency.row(node).chunks(INTERVAL) {
        cancel_check.spend(neighbours.len() + 1)?;
        for &neighbour in neighbours {
            let row = &rows[neighbour as usize];
            for lane in 0..LANES {
                sum[lane] += row[lane];
            }
        }
    }
    Ok(sum)
}
