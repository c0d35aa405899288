//! The host side on CUDA: batches of sources, level by level. `betweenness_centrality.cu` describes the algorithm and
//! what its entries take.

use super::batches::{Batches, Segment};
use super::pivots::Pivots;
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{Buffer, InvalidInput, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/betweenness-centrality"));

/// Sources that share each read of the adjacency, one for each lane of a warp.
const GROUP: usize = 32;
/// Device memory for a batch's state. The outputs do not depend on it. A source of a deep graph takes half the time in
/// batches four times as large; with this, requests still fit on small devices and next to each other.
const BATCH_BYTES: u64 = 2 << 30;
/// Bytes of a batch's state for each node and group of sources.
const ITEM_BYTES: u64 = 788;
/// A level visits all nodes where the frontier's arcs times this are more than all arcs.
const DENSE_FACTOR: u32 = 8;
/// Levels from which on a search counts as deep.
const SHALLOW: u32 = 8;
/// Levels of a deep search that are launched before the host reads the device's progress again. A launch after the last
/// level does nothing.
const LEVELS_PER_PROGRESS_READ: usize = 4;
/// Levels that one launch takes while they are narrow: some milliseconds.
const LEVELS_PER_LAUNCH: u32 = 256;
/// Blocks of such a launch for each multiprocessor: few, because all wait at a barrier at each level.
const COOPERATIVE_BLOCKS: u64 = 2;
/// The most entries of a level for which such a launch is worth it, for each multiprocessor.
const NARROW: u64 = 2048;

/// Groups of sources in a batch, of `sources` in all.
fn groups(nodes: u64, sources: u64) -> u64 {
    let all = sources.div_ceil(GROUP as u64);
    (BATCH_BYTES / nodes.saturating_mul(ITEM_BYTES).max(1)).clamp(1, all.max(1))
}

/// Bytes that a run of `requests` with `sources` in all holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, requests: u64, directed: bool) -> u64 {
    let groups = groups(nodes, sources);
    let batch = sources.min(groups.saturating_mul(GROUP as u64));
    let rows = requests.min(batch);
    let words = batch.saturating_add(rows).saturating_add(1);
    let state = nodes.saturating_mul(groups.saturating_mul(532).saturating_add(words.saturating_mul(8)));
    let graph = nodes.saturating_add(arcs).saturating_mul(if directed { 8 } else { 4 });
    state.saturating_add(graph).saturating_add(sources.saturating_mul(4))
}

/// A graph on the device.
#[derive(Clone, Copy)]
pub(super) struct DeviceGraph {
    nodes: usize,
    out_row: DeviceBuffer<u32>,
    out_column: DeviceBuffer<u32>,
    in_row: DeviceBuffer<u32>,
    in_column: DeviceBuffer<u32>,
}

impl DeviceGraph {
    /// Returns the arrays of a graph on the device: the copies of an operand, or an upload.
    pub(super) fn new(graph: &CsrGraph, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let (successors, predecessors) = (graph.successors(), graph.predecessors());
        let (out_row, out_column) = (cuda.input(successors.row_offsets())?, cuda.input(successors.column_indices())?);
        let (in_row, in_column) = if std::ptr::eq(successors, predecessors) {
            (out_row, out_column)
        } else {
            (cuda.input(predecessors.row_offsets())?, cuda.input(predecessors.column_indices())?)
        };
        Ok(Self { nodes: graph.num_nodes(), out_row, out_column, in_row, in_column })
    }
}

/// Sums of the dependencies of each request's pivots on each node, in the order of the pivots.
///
/// The requests share batches of sources. Their sums have the same bits as in a run by themselves.
///
/// # Errors
/// More shortest paths between two nodes than an `f64` can count; those of the launch context.
pub(super) fn pair_dependencies(
    graph: &DeviceGraph,
    requests: &[Pivots],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Buffer<f64>>, KernelError> {
    let lengths: Vec<usize> = requests.iter().map(Pivots::len).collect();
    let sources: Vec<u32> =
        requests.iter().flat_map(|pivots| (0..pivots.len()).map(|index| pivots.node(index))).collect();
    if sources.is_empty() {
        return Ok(vec![Buffer::zeroed(graph.nodes); requests.len()]);
    }
    let sources = cuda.upload(&sources)?;
    let run = Run::new(graph, sources.len(), requests.len(), cuda)?;
    let mut sums = Vec::with_capacity(requests.len());
    cuda.context().set_steps(sources.len() as u64);
    for batch in Batches::new(&lengths, run.groups as usize * GROUP) {
        run.batch(&sources.slice(batch.sources.clone()), cuda)?;
        run.collect(&batch.segments, cuda)?;
        for segment in batch.segments.iter().filter(|segment| segment.is_last) {
            sums.push(cuda.download(&run.scores(segment))?);
        }
        cuda.context().advance(batch.sources.len() as u64);
    }
    Ok(sums)
}

/// The graph and a batch's state on the device.
struct Run {
    nodes: u32,
    groups: u32,
    /// Rows of `scores`.
    rows: usize,
    multiprocessors: u64,
    cancel: CancelFlag,
    out_row: DeviceBuffer<u32>,
    out_column: DeviceBuffer<u32>,
    in_row: DeviceBuffer<u32>,
    in_column: DeviceBuffer<u32>,
    cells: DeviceBuffer<f64>,
    stamps: DeviceBuffer<u64>,
    seen: DeviceBuffer<u32>,
    dependency: DeviceBuffer<f64>,
    scores: DeviceBuffer<f64>,
    /// Pairs of (item, bits), as one word each.
    list: DeviceBuffer<u64>,
    level_begin: DeviceBuffer<u64>,
    control: DeviceBuffer<u64>,
}

/// What the host reads of the kernels' `Control`.
struct Progress {
    /// Entries of the frontier: none once the search is done.
    frontier: u64,
    depth: u32,
    overflow: bool,
}

impl Run {
    /// Allocates the state for batches of `sources`, which are of this many requests.
    fn new(
        graph: &DeviceGraph,
        sources: usize,
        requests: usize,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let DeviceGraph { nodes, out_row, out_column, in_row, in_column } = *graph;
        let groups = groups(nodes as u64, sources as u64);
        let items = nodes * groups as usize;
        let batch = sources.min(groups as usize * GROUP);
        let rows = requests.min(batch);
        if items > u32::MAX as usize {
            return Err(InvalidInput::new("num_nodes", format!("{nodes} nodes are too many for CUDA")).into());
        }
        Ok(Self {
            nodes: nodes as u32,
            groups: groups as u32,
            rows,
            multiprocessors: u64::from(cuda.device().multiprocessors),
            cancel: cuda.cancel_flag(),
            out_row,
            out_column,
            in_row,
            in_column,
            cells: cuda.alloc(items * GROUP)?,
            stamps: cuda.alloc(items * 2)?,
            seen: cuda.alloc(items)?,
            dependency: cuda.alloc(items * GROUP)?,
            scores: cuda.alloc(nodes * rows)?,
            list: cuda.alloc(nodes * batch)?,
            level_begin: cuda.alloc(nodes + 2)?,
            control: cuda.alloc(9)?,
        })
    }

    /// Finds the dependencies of each of a batch of sources.
    fn batch(&self, sources: &DeviceBuffer<u32>, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, in_row, cells, dependency, stamps, seen, list, level_begin, control, .. } = self;
        cuda.zero(stamps)?;
        cuda.zero(seen)?;
        cuda.zero(control)?;
        let num_sources = sources.len() as u32;
        let args: [&dyn Arg; 11] =
            [nodes, &num_sources, sources, in_row, cells, dependency, stamps, seen, list, level_begin, control];
        cuda.launch(&MODULE, "betweenness_seed", Launch::new(1, 256), &args)?;
        let depth = self.search(num_sources, cuda)?;
        self.accumulate(depth.saturating_sub(1), cuda)
    }

    /// Searches from the sources level by level; returns the number of levels.
    fn search(&self, num_sources: u32, cuda: &mut LaunchContext<'_>) -> Result<u32, KernelError> {
        let Self { nodes, groups, cancel, out_row, out_column, in_row, in_column, .. } = self;
        let Self { cells, stamps, seen, list, level_begin, control, .. } = self;
        let items = u64::from(*nodes) * u64::from(*groups);
        let wide = Launch::new((6 * self.multiprocessors).min(items.div_ceil(8)) as u32, 256);
        let discover: [&dyn Arg; 11] =
            [nodes, groups, &DENSE_FACTOR, in_row, out_row, out_column, stamps, seen, list, control, cancel];
        let count: [&dyn Arg; 13] = [
            nodes,
            groups,
            &num_sources,
            &DENSE_FACTOR,
            in_row,
            in_column,
            cells,
            stamps,
            seen,
            list,
            level_begin,
            control,
            cancel,
        ];
        let narrow = self.narrow() as u32;
        let search: [&dyn Arg; 17] = [
            nodes,
            groups,
            &num_sources,
            &DENSE_FACTOR,
            in_row,
            in_column,
            out_row,
            out_column,
            cells,
            stamps,
            seen,
            list,
            level_begin,
            control,
            cancel,
            &LEVELS_PER_LAUNCH,
            &narrow,
        ];
        let mut progress = Progress { frontier: 0, depth: 0, overflow: false };
        loop {
            if progress.depth >= SHALLOW && progress.frontier <= self.narrow() {
                cuda.launch(&MODULE, "betweenness_search", self.cooperative(), &search)?;
            } else {
                for _ in 0..if progress.depth < SHALLOW { 1 } else { LEVELS_PER_PROGRESS_READ } {
                    cuda.launch(&MODULE, "betweenness_discover", wide, &discover)?;
                    cuda.launch(&MODULE, "betweenness_count", wide, &count)?;
                }
            }
            progress = self.progress(cuda)?;
            if progress.overflow {
                return Err(
                    InvalidInput::new("edges", "more shortest paths between two nodes than can be counted").into()
                );
            }
            if progress.frontier == 0 {
                return Ok(progress.depth);
            }
        }
    }

    /// Accumulates dependencies from the deepest level back to the sources.
    fn accumulate(&self, deepest: u32, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, groups, cancel, out_row, out_column, cells, .. } = self;
        let Self { stamps, dependency, list, level_begin, control, .. } = self;
        let begins = cuda.download(&level_begin.slice(..=deepest as usize + 1))?;
        let entries = |depth: u32| begins[depth as usize + 1] - begins[depth as usize];
        let mut depth = deepest;
        while depth > 0 {
            let narrow = (1..=depth).rev().take(LEVELS_PER_LAUNCH as usize);
            let narrow = narrow.take_while(|&depth| entries(depth) <= self.narrow()).count() as u32;
            if narrow >= SHALLOW {
                let to = depth + 1 - narrow;
                let args: [&dyn Arg; 14] = [
                    nodes,
                    groups,
                    out_row,
                    out_column,
                    cells,
                    stamps,
                    dependency,
                    list,
                    level_begin,
                    control,
                    cancel,
                    &depth,
                    &to,
                    &deepest,
                ];
                cuda.launch(&MODULE, "betweenness_accumulate_levels", self.cooperative(), &args)?;
                depth = to - 1;
                continue;
            }
            let (begin, end) = (begins[depth as usize], begins[depth as usize + 1]);
            let blocks = entries(depth).div_ceil(8).min(16 * self.multiprocessors).max(entries(depth).div_ceil(256));
            let is_deepest = u32::from(depth == deepest);
            let args: [&dyn Arg; 14] = [
                nodes,
                groups,
                out_row,
                out_column,
                cells,
                stamps,
                dependency,
                list,
                control,
                cancel,
                &begin,
                &end,
                &depth,
                &is_deepest,
            ];
            cuda.launch(&MODULE, "betweenness_accumulate", Launch::new(blocks as u32, 256), &args)?;
            depth -= 1;
        }
        Ok(())
    }

    /// Adds the dependencies of a batch to the scores of the requests that its sources are of.
    fn collect(&self, segments: &[Segment], cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let words: Vec<u32> = segments
            .iter()
            .flat_map(|segment| {
                let sources = &segment.sources;
                [self.row(segment) as u32, sources.start as u32, sources.end as u32, u32::from(segment.is_first)]
            })
            .collect();
        let words = cuda.upload(&words)?;
        let blocks = self.nodes.div_ceil(256).clamp(1, 65_535);
        let launch = Launch { grid: [segments.len() as u32, blocks, 1], ..Launch::new(1, 256) };
        let args: [&dyn Arg; 5] = [&self.nodes, &words, &self.seen, &self.dependency, &self.scores];
        cuda.launch(&MODULE, "betweenness_collect", launch, &args)
    }

    /// The row of `scores` of a request. The requests of a batch follow each other, so no two of them have the same.
    fn row(&self, segment: &Segment) -> usize {
        segment.request % self.rows
    }

    /// The scores of a request.
    fn scores(&self, segment: &Segment) -> DeviceBuffer<f64> {
        let (row, nodes) = (self.row(segment), self.nodes as usize);
        self.scores.slice(row * nodes..(row + 1) * nodes)
    }

    /// The shape of a launch of many levels.
    fn cooperative(&self) -> Launch {
        Launch::cooperative((COOPERATIVE_BLOCKS * self.multiprocessors) as u32, 256)
    }

    /// The most entries of a level for which such a launch is worth it.
    fn narrow(&self) -> u64 {
        NARROW * self.multiprocessors
    }

    fn progress(&self, cuda: &mut LaunchContext<'_>) -> Result<Progress, KernelError> {
        let mut control = [0_u64; 9];
        cuda.download_into(&self.control, &mut control)?;
        // tail, begin, end, frontier_arcs, next_arcs, then 32-bit words: depth, two counters, blocks_done, path_overflow,
        // cancelled, barrier_generation.
        let [_, begin, end, _, _, depth, _, overflow, _] = control;
        Ok(Progress { frontier: end - begin, depth: depth as u32, overflow: overflow as u32 != 0 })
    }
}
