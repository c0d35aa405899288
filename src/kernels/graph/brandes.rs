//! Betweenness centrality of unweighted graphs.
//!
//! Brandes, *A faster algorithm for betweenness centrality* (2001): from each source, count the shortest paths to every
//! node level by level, then walk the levels back and add up how much of them passes through each node. Here eight
//! sources go together (as in Then et al., *The more the merrier*, 2014): a node holds one path count for each of
//! eight lanes, so that a neighbour list read once serves eight traversals and adding up a neighbour is one vector
//! addition. A level either pushes from its nodes or, when its edges outnumber those of the nodes not yet reached, pulls
//! into these (Beamer, Asanović and Patterson, *Direction-optimizing breadth-first search*, 2012).
//!
//! No distances are kept. A neighbour that still has to be told from the others is the one whose value is not zero yet:
//! going forward a node that is not reached can only be next to the last level, and going back a node can only lead to
//! levels that are done or to nodes whose value is not written yet.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::csr::{Adjacency, CsrGraph};
use super::pivots::Pivots;
use crate::service::{Context, Invalid, KernelError};

/// Sources that a wide traversal serves.
const WIDE: usize = 8;

/// A bit for each lane.
type LaneSet = u8;

/// Neighbours looked at between two looks at whether to stop: a few tens of microseconds.
const STOP_INTERVAL: usize = 1 << 15;

/// Below so many neighbours to look at, handing out work costs more than doing it.
const SEQUENTIAL_ARCS: usize = 1 << 17;

/// How much cheaper a neighbour is to pull from than to push to. Measured: 3 to 6 are alike.
const PULL_GAIN: usize = 4;

/// Where a visit serves fewer lanes than this on average, one source at a time is faster.
const LANES_WORTH_IT: f64 = 2.0;

/// Parts of the work that each thread gets on average; parts are handed out as threads come free.
const PARTS_PER_THREAD: usize = 4;

/// What the traversals that run at one time may hold in memory; the threads beyond that stay idle.
const WORKSPACE_BYTES: usize = 8 << 30;

/// Two rows, the sets and the order of visits for each node of a traversal.
const WORKSPACE_BYTES_PER_NODE: usize = 3 * WIDE * size_of::<f64>();

/// Sums of pair dependencies over all `pivots`, one for each node; [`Pivots::rescale`] makes scores of them.
///
/// Runs on the rayon pool that it is called from. For one size of pool the sums are the same to the last bit each time:
/// the work is split into parts by number and the parts are added in order.
///
/// The context is checked before each traversal and about every 2^15 neighbours.
///
/// # Errors
/// What the context says, or [`Invalid`] where there are more shortest paths between two nodes than an `f64` can count.
pub fn pair_dependencies(graph: &CsrGraph, pivots: &Pivots, context: &Context<'_>) -> Result<Vec<f64>, KernelError> {
    let num_nodes = graph.num_nodes();
    let batches = pivots.len().div_ceil(WIDE);
    let arcs = batches.saturating_mul(graph.num_arcs() + num_nodes);
    let parts = if arcs < SEQUENTIAL_ARCS {
        1
    } else {
        let affordable = WORKSPACE_BYTES / (WORKSPACE_BYTES_PER_NODE * num_nodes.max(1));
        let threads = rayon::current_num_threads();
        let parts = if affordable < threads { affordable.max(1) } else { threads * PARTS_PER_THREAD };
        parts.min(batches)
    };

    let wide = Idle::new();
    let narrow = Idle::new();
    let part = |part: usize| {
        let mut sums = vec![0.0; num_nodes];
        let mut patience = Patience { left: 0, context };
        let mut together = true;
        for batch in (part..batches).step_by(parts) {
            let sources = batch * WIDE..pivots.len().min((batch + 1) * WIDE);
            if together {
                let mut traversal = wide.take().unwrap_or_else(|| Traversal::<WIDE>::new(graph));
                together = traversal.run(pivots, sources, &mut sums, &mut patience)? >= LANES_WORTH_IT;
                wide.put(traversal);
            } else {
                let mut traversal = narrow.take().unwrap_or_else(|| Traversal::<1>::new(graph));
                for source in sources {
                    traversal.run(pivots, source..source + 1, &mut sums, &mut patience)?;
                }
                narrow.put(traversal);
            }
        }
        Ok(sums)
    };
    if parts <= 1 {
        return part(0);
    }
    let partial: Vec<Vec<f64>> = (0..parts).into_par_iter().map(part).collect::<Result<_, _>>()?;
    let mut partial = partial.into_iter();
    let mut sums = partial.next().unwrap_or_default();
    for other in partial {
        sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
    }
    Ok(sums)
}

/// Traversals that no thread is using.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, traversal: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(traversal);
    }
}

/// Asks whether to go on once enough work was done since the last time.
struct Patience<'a> {
    left: usize,
    context: &'a Context<'a>,
}

impl Patience<'_> {
    #[inline(always)]
    fn spend(&mut self, work: usize) -> Result<(), KernelError> {
        if work < self.left {
            self.left -= work;
            return Ok(());
        }
        self.ask()
    }

    #[cold]
    #[inline(never)]
    fn ask(&mut self) -> Result<(), KernelError> {
        self.left = STOP_INTERVAL;
        self.context.check()
    }
}

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

/// Rows for all nodes, a wide one in one cache line. Zeroed pages come from the system as they are touched, so a large
/// graph of which a traversal sees little costs little.
struct Rows<const LANES: usize> {
    values: Vec<f64>,
    start: usize,
}

impl<const LANES: usize> Rows<LANES> {
    fn new(num_nodes: usize) -> Self {
        let values = vec![0.0_f64; (num_nodes + 1) * LANES];
        let start = values.as_ptr().align_offset(LANES * size_of::<f64>()).min(LANES);
        Self { values, start }
    }

    #[inline(always)]
    fn rows(&mut self) -> &mut [[f64; LANES]] {
        self.values[self.start..].as_chunks_mut().0
    }
}

/// The state of a traversal from up to `LANES` sources, used again by the next.
struct Traversal<'g, const LANES: usize> {
    graph: &'g CsrGraph,
    /// Forward: the number of shortest paths from the lane's source, 0 where it has not come.
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
    fn new(graph: &'g CsrGraph) -> Self {
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

    /// Adds the dependencies of one batch of sources to `sums`. Answers how many lanes a visit served on average.
    fn run(
        &mut self,
        pivots: &Pivots,
        sources: std::ops::Range<usize>,
        sums: &mut [f64],
        patience: &mut Patience<'_>,
    ) -> Result<f64, KernelError> {
        patience.ask()?;
        let (first, last) = (pivots.node(sources.start), pivots.node(sources.end - 1));
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let most = self.count_paths(pivots, sources, patience)?;
                if most == f64::INFINITY {
                    let reason = format!("f64 cannot count the shortest paths from one of the nodes {first} to {last}");
                    return Err(Invalid::new("edges", reason).into());
                }
                self.accumulate(sums, patience)?;
                self.reset(patience)
            },
        )
    }

    /// The forward half: levels, visits and numbers of paths. Answers the largest number.
    #[inline(always)]
    fn count_paths(
        &mut self,
        pivots: &Pivots,
        sources: std::ops::Range<usize>,
        patience: &mut Patience<'_>,
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
            patience.spend(end - start)?;
            let frontier_arcs: usize = visits[start..end].iter().map(|visit| successors.degree(visit.node)).sum();
            if frontier_arcs > open_arcs / PULL_GAIN {
                if !counted {
                    counted = true;
                    open.clear();
                    open.extend(0..graph.num_nodes() as u32);
                }
                patience.spend(open.len())?;
                open_arcs = 0;
                open.retain(|&node| {
                    let keep = progress[node as usize].reached != every_lane;
                    open_arcs += if keep { predecessors.degree(node) } else { 0 };
                    keep
                });
                for &node in &*open {
                    let sum = sum_rows(paths, predecessors, node, patience)?;
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
                    for neighbours in successors.row(node).chunks(STOP_INTERVAL) {
                        patience.spend(neighbours.len() + 1)?;
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

    /// The half that goes back: dependencies from the last level to the first after the sources.
    #[inline(always)]
    fn accumulate(&mut self, sums: &mut [f64], patience: &mut Patience<'_>) -> Result<(), KernelError> {
        let successors = self.graph.successors();
        let (paths, shares) = (self.paths.rows(), self.shares.rows());
        let mut deepest = true;
        for bounds in self.levels.windows(2).skip(1).rev() {
            let level = &self.visits[bounds[0]..bounds[1]];
            for &Visit { node, lanes } in level {
                // With s the sum of the successors' shares, the dependency is paths * s and the share 1 / paths + s.
                let sum = if deepest { [0.0; LANES] } else { sum_rows(shares, successors, node, patience)? };
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

    /// Back to zero, touching only what was visited. Answers how many lanes a visit served on average.
    #[inline(always)]
    fn reset(&mut self, patience: &mut Patience<'_>) -> Result<f64, KernelError> {
        let (paths, shares) = (self.paths.rows(), self.shares.rows());
        let mut served = 0;
        for visits in self.visits.chunks(STOP_INTERVAL) {
            patience.spend(visits.len())?;
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

/// All bits of the lanes in a set. Looked up, because the compiler makes vector code of this where it does not of tests
/// of single bits.
struct Masks<const LANES: usize>;

impl<const LANES: usize> Masks<LANES> {
    const OF: [[u64; LANES]; 1 << LaneSet::BITS] = {
        let mut masks = [[0; LANES]; 1 << LaneSet::BITS];
        let mut set = 0;
        while set < masks.len() {
            let mut lane = 0;
            while lane < LANES {
                masks[set][lane] = if set >> lane & 1 == 1 { u64::MAX } else { 0 };
                lane += 1;
            }
            set += 1;
        }
        masks
    };
}

/// Sum of the rows of `node`'s neighbours.
#[inline(always)]
fn sum_rows<const LANES: usize>(
    rows: &[[f64; LANES]],
    adjacency: &Adjacency,
    node: u32,
    patience: &mut Patience<'_>,
) -> Result<[f64; LANES], KernelError> {
    let mut sum = [0.0; LANES];
    for neighbours in adjacency.row(node).chunks(STOP_INTERVAL) {
        patience.spend(neighbours.len() + 1)?;
        for &neighbour in neighbours {
            let row = &rows[neighbour as usize];
            for lane in 0..LANES {
                sum[lane] += row[lane];
            }
        }
    }
    Ok(sum)
}

/// The lanes that are not zero.
#[inline(always)]
fn nonzero<const LANES: usize>(row: &[f64; LANES]) -> LaneSet {
    let lanes: [u64; LANES] = std::array::from_fn(|lane| u64::from(row[lane] != 0.0) << lane);
    lanes.into_iter().fold(0, |set, lane| set | lane) as LaneSet
}

/// The given lanes of `row`, 0 in the others.
#[inline(always)]
fn only<const LANES: usize>(row: &[f64; LANES], lanes: LaneSet) -> [f64; LANES] {
    let mask = &Masks::<LANES>::OF[lanes as usize];
    std::array::from_fn(|lane| f64::from_bits(row[lane].to_bits() & mask[lane]))
}

/// Writes the given lanes of `from` into `to`.
#[inline(always)]
fn merge<const LANES: usize>(to: &mut [f64; LANES], from: &[f64; LANES], lanes: LaneSet) {
    let mask = &Masks::<LANES>::OF[lanes as usize];
    for lane in 0..LANES {
        let bits = (from[lane].to_bits() & mask[lane]) | (to[lane].to_bits() & !mask[lane]);
        to[lane] = f64::from_bits(bits);
    }
}

/// Adds the given lanes of `from` to `to`.
#[inline(always)]
fn add<const LANES: usize>(to: &mut [f64; LANES], from: &[f64; LANES], lanes: LaneSet) {
    let from = only(from, lanes);
    for lane in 0..LANES {
        to[lane] += from[lane];
    }
}

/// Adds up the lanes, halves first: one after the other would be a chain of additions that wait for each other.
#[inline(always)]
fn total<const LANES: usize>(mut row: [f64; LANES]) -> f64 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            row[lane] += row[lane + width];
        }
    }
    row[0]
}
