//! The search on CUDA, from many sources at once. `shortest_path.cu` and `frontier.cuh` describe the algorithm and what its
//! entries take.

use super::{ShortestPathOutput, predecessors_at_hand};
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/shortest-path"));

/// Pairs of a source and a node that are searched at once; further sources follow.
const BATCH_ITEMS: u64 = 1 << 28;
/// A level pulls where its arcs times this are more than all arcs.
const PULL_FACTOR: u32 = 8;
/// Blocks of a launch of wide levels, for each multiprocessor: as many as fit.
const WIDE_BLOCKS: u32 = 4;
/// Levels of a launch of wide levels. The host then looks whether they have become narrow.
const WIDE_LEVELS: u32 = 8;
/// Entries of a level for each block of a launch of narrow levels. Fewer blocks wait less at the barrier of each level.
const NARROW_ENTRIES: u32 = 64;
/// How many times as many entries a level of such a launch may get.
const NARROW_GROWTH: u32 = 4;
/// Levels of a launch of narrow levels: some milliseconds.
const NARROW_LEVELS: u32 = 1024;
/// The 64-bit words of `Frontier`.
const FRONTIER_WORDS: usize = 8;

/// Sources of a batch.
fn batch(nodes: u64, sources: u64) -> u64 {
    (BATCH_ITEMS / nodes.max(1)).clamp(1, sources.max(1))
}

/// Bytes that a run holds on the device: the graph, and the distances, the list and the predecessors of a batch.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, with_predecessors: bool, directed: bool) -> u64 {
    let items = batch(nodes, sources).saturating_mul(nodes);
    let state = items.saturating_mul(if with_predecessors { 12 } else { 8 });
    let graph = nodes.saturating_add(arcs).saturating_mul(if directed { 8 } else { 4 });
    state.saturating_add(graph).saturating_add(sources.saturating_mul(4)).saturating_add(1 << 12)
}

/// Returns the distances and, if requested, the predecessors from each source.
///
/// # Errors
/// Those of the launch context.
pub(super) fn search(
    graph: &CsrGraph,
    sources: &[u32],
    with_predecessors: bool,
    cuda: &mut LaunchContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let batch = batch(nodes as u64, sources.len() as u64) as usize;
    let search = Search::new(graph, batch, with_predecessors, cuda)?;
    cuda.context().set_steps(sources.len() as u64);
    let (mut distances, mut predecessors) = (Vec::new(), Vec::new());
    for sources in sources.chunks(batch) {
        search.run(sources, cuda)?;
        let items = nodes * sources.len();
        let found = search.predecessors.map(|found| found.slice(..items));
        distances.push(cuda.download(&search.distances.slice(..items))?);
        if let Some(found) = found {
            predecessors.push(cuda.download(&found)?);
        }
        cuda.context().advance(sources.len() as u64);
    }
    Ok(ShortestPathOutput {
        distances: super::joined(distances),
        weighted_distances: None,
        predecessors: super::joined(predecessors),
    })
}

/// The graph and the state of a batch on the device.
struct Search {
    nodes: u32,
    pull_factor: u32,
    multiprocessors: u32,
    cancel: CancelFlag,
    out_row: DeviceBuffer<u32>,
    out_column: DeviceBuffer<u32>,
    in_row: DeviceBuffer<u32>,
    in_column: DeviceBuffer<u32>,
    distances: DeviceBuffer<u32>,
    list: DeviceBuffer<u32>,
    predecessors: Option<DeviceBuffer<u32>>,
    frontier: DeviceBuffer<u64>,
}

impl Search {
    fn new(
        graph: &CsrGraph,
        batch: usize,
        with_predecessors: bool,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let nodes = graph.num_nodes();
        let items = nodes * batch;
        let successors = graph.successors();
        let (out_row, out_column) = (cuda.input(successors.row_offsets())?, cuda.input(successors.column_indices())?);
        let (in_row, in_column, pull_factor) = match predecessors_at_hand(graph) {
            Some(predecessors) if !std::ptr::eq(predecessors, successors) => {
                let in_row = cuda.input(predecessors.row_offsets())?;
                (in_row, cuda.input(predecessors.column_indices())?, PULL_FACTOR)
            }
            Some(_) => (out_row, out_column, PULL_FACTOR),
            None => (out_row, out_column, 0),
        };
        Ok(Self {
            nodes: nodes as u32,
            pull_factor,
            multiprocessors: cuda.device().multiprocessors,
            cancel: cuda.cancel_flag(),
            out_row,
            out_column,
            in_row,
            in_column,
            distances: cuda.alloc(items)?,
            list: cuda.alloc(items)?,
            predecessors: if with_predecessors { Some(cuda.alloc(items)?) } else { None },
            frontier: cuda.alloc(FRONTIER_WORDS)?,
        })
    }

    /// Finds the distances and the predecessors from each of a batch of sources.
    fn run(&self, sources: &[u32], cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, out_row, distances, list, frontier, .. } = self;
        let num_sources = sources.len() as u32;
        let sources = cuda.upload(sources)?;
        let items = nodes * num_sources;
        let by_item = Launch::elements(items as usize, u32::MAX);
        cuda.zero(frontier)?;
        cuda.launch(&MODULE, "shortest_path_clear", by_item, &[&items, distances])?;
        let start: [&dyn Arg; 7] = [nodes, &num_sources, &sources, out_row, distances, list, frontier];
        cuda.launch(&MODULE, "shortest_path_start", Launch::new(1, 256), &start)?;
        self.find_distances(num_sources, cuda)?;
        let Some(predecessors) = &self.predecessors else { return Ok(()) };
        let Self { out_column, cancel, .. } = self;
        cuda.launch(&MODULE, "shortest_path_clear", by_item, &[&items, predecessors])?;
        let args: [&dyn Arg; 8] = [nodes, &num_sources, out_row, out_column, distances, predecessors, frontier, cancel];
        let balanced = Launch::elements(items as usize, 6 * self.multiprocessors);
        cuda.launch(&MODULE, "shortest_path_predecessors", balanced, &args)
    }

    /// Searches level by level: wide levels with all blocks, and narrow ones with few.
    fn find_distances(&self, num_sources: u32, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, pull_factor, out_row, out_column, in_row, in_column, .. } = self;
        let Self { distances, list, frontier, cancel, .. } = self;
        let wide_blocks = WIDE_BLOCKS * self.multiprocessors;
        let mut shape = (wide_blocks, WIDE_LEVELS, u32::MAX);
        loop {
            let (blocks, levels, max_entries) = shape;
            let args: [&dyn Arg; 13] = [
                nodes,
                &num_sources,
                pull_factor,
                out_row,
                out_column,
                in_row,
                in_column,
                distances,
                list,
                frontier,
                cancel,
                &levels,
                &max_entries,
            ];
            cuda.launch(&MODULE, "shortest_path_search", Launch::cooperative(blocks, 256), &args)?;
            let mut progress = [0_u64; FRONTIER_WORDS];
            cuda.download_into(frontier, &mut progress)?;
            let [_, begin, end, ..] = progress;
            if begin == end {
                return Ok(());
            }
            let entries = u32::try_from(end - begin).unwrap_or(u32::MAX);
            let blocks = entries.div_ceil(NARROW_ENTRIES).next_power_of_two().max(4);
            shape = if blocks <= self.multiprocessors {
                (blocks, NARROW_LEVELS, blocks * NARROW_ENTRIES * NARROW_GROWTH)
            } else {
                (wide_blocks, WIDE_LEVELS, u32::MAX)
            };
        }
    }
}
