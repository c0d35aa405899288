//! The host side on CUDA: batches of sources, level by level. `betweenness_centrality.cu` describes the algorithm and
//! what its entries take.

use super::pivots::Pivots;
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{Buffer, InvalidInput, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/betweenness-centrality"));

/// Sources that share each read of the adjacency, one for each lane of a warp.
const GROUP: usize = 32;
/// Device memory for a batch's state. A constant, not a share of what is free: the sum's order depends on the batch.
const BATCH_BYTES: u64 = 1 << 30;
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

/// Groups of sources in a batch, of `pivots` sources in all.
fn groups(nodes: u64, pivots: u64) -> u64 {
    let all = pivots.div_ceil(GROUP as u64);
    (BATCH_BYTES / nodes.saturating_mul(540).max(1)).clamp(1, all.max(1))
}

/// Bytes that a run holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64, pivots: u64, directed: bool) -> u64 {
    let groups = groups(nodes, pivots);
    let sources = pivots.min(groups.saturating_mul(GROUP as u64));
    let state = nodes.saturating_mul(groups.saturating_mul(284).saturating_add(sources.saturating_mul(8)));
    let graph = nodes.saturating_add(arcs).saturating_mul(if directed { 8 } else { 4 });
    state.saturating_add(graph).saturating_add(nodes.saturating_mul(16)).saturating_add(pivots.saturating_mul(4))
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

/// The dependencies of all pivots on each node, added up.
///
/// # Errors
/// More shortest paths between two nodes than an `f64` can count; those of the launch context.
pub(super) fn pair_dependencies(
    graph: &DeviceGraph,
    pivots: &Pivots,
    cuda: &mut LaunchContext<'_>,
) -> Result<Buffer<f64>, KernelError> {
    let nodes = graph.nodes;
    if nodes == 0 || pivots.is_empty() {
        return Ok(Buffer::zeroed(nodes));
    }
    let sources: Vec<u32> = (0..pivots.len()).map(|index| pivots.node(index)).collect();
    let sources = cuda.upload(&sources)?;
    let run = Run::new(graph, pivots.len(), cuda)?;
    let batch = run.groups as usize * GROUP;
    cuda.context().set_steps(sources.len() as u64);
    for start in (0..sources.len()).step_by(batch) {
        let end = sources.len().min(start + batch);
        run.batch(&sources.slice(start..end), cuda)?;
        cuda.context().advance((end - start) as u64);
    }
    let scores = cuda.alloc::<f64>(nodes)?;
    let blocks = (nodes as u64).div_ceil(256).clamp(1, 65_535) as u32;
    let args: [&dyn Arg; 5] = [&run.nodes, &run.groups, &1.0_f64, &run.dependency, &scores];
    cuda.launch(&MODULE, "betweenness_collect", Launch::new(blocks, 256), &args)?;
    cuda.download(&scores)
}

/// The graph and a batch's state on the device.
struct Run {
    nodes: u32,
    groups: u32,
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
    fn new(graph: &DeviceGraph, pivots: usize, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let DeviceGraph { nodes, out_row, out_column, in_row, in_column } = *graph;
        let groups = groups(nodes as u64, pivots as u64);
        let items = nodes * groups as usize;
        if items > u32::MAX as usize {
            return Err(InvalidInput::new("num_nodes", format!("{nodes} nodes are too many for CUDA")).into());
        }
        Ok(Self {
            nodes: nodes as u32,
            groups: groups as u32,
            multiprocessors: u64::from(cuda.device().multiprocessors),
            cancel: cuda.cancel_flag(),
            out_row,
            out_column,
            in_row,
            in_column,
            cells: cuda.alloc(items * GROUP)?,
            stamps: cuda.alloc(items * 2)?,
            seen: cuda.alloc(items)?,
            dependency: cuda.zeroed(items)?,
            list: cuda.alloc(nodes * pivots.min(groups as usize * GROUP))?,
            level_begin: cuda.alloc(nodes + 2)?,
            control: cuda.alloc(9)?,
        })
    }

    /// Adds the dependencies of a batch of sources.
    fn batch(&self, sources: &DeviceBuffer<u32>, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, in_row, cells, stamps, seen, list, level_begin, control, .. } = self;
        cuda.zero(stamps)?;
        cuda.zero(seen)?;
        cuda.zero(control)?;
        let num_sources = sources.len() as u32;
        let args: [&dyn Arg; 10] =
            [nodes, &num_sources, sources, in_row, cells, stamps, seen, list, level_begin, control];
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
