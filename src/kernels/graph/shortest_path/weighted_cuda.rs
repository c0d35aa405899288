//! Shortest paths by weights on CUDA, from many sources at once. `weighted_paths.cu` describes the algorithm and what its
//! entries take.

use super::ShortestPathOutput;
use super::weighted::bucket_width;
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/weighted-paths"));

/// Pairs of a source and a node that are searched at once; further sources follow.
const BATCH_ITEMS: u64 = 1 << 26;
/// Blocks of a launch of wide rounds, for each multiprocessor: as many as fit.
const WIDE_BLOCKS: u32 = 4;
/// Rounds of a launch of wide rounds. The host then looks whether they have become narrow.
const WIDE_ROUNDS: u32 = 8;
/// Entries of a round for each block of a launch of narrow rounds. Fewer blocks wait less at the barrier of each round.
const NARROW_ENTRIES: u32 = 64;
/// How many times as many entries a round of such a launch may get.
const NARROW_GROWTH: u32 = 4;
/// Rounds of a launch of narrow rounds: some milliseconds.
const NARROW_ROUNDS: u32 = 512;
/// The 64-bit words of `Progress`.
const PROGRESS_WORDS: usize = 12;
/// The lists of a batch: two of near and two of far items.
const LISTS: usize = 4;

/// Sources of a batch.
fn batch(nodes: u64, sources: u64) -> u64 {
    (BATCH_ITEMS / nodes.max(1)).clamp(1, sources.max(1))
}

/// Bytes that a run holds on the device: the graph and its weights, and the state of a batch.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, with_predecessors: bool) -> u64 {
    let items = batch(nodes, sources).saturating_mul(nodes);
    let state = items.saturating_mul(if with_predecessors { 36 } else { 28 });
    let graph = nodes.saturating_mul(4).saturating_add(arcs.saturating_mul(8));
    state.saturating_add(graph).saturating_add(sources.saturating_mul(4)).saturating_add(1 << 12)
}

/// Returns the distances and, if requested, the predecessors from each source in a graph with weights that are not negative.
///
/// # Errors
/// Those of the launch context.
pub(super) fn search(
    graph: &CsrGraph,
    weights: &[f32],
    sources: &[u32],
    with_predecessors: bool,
    cuda: &mut LaunchContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let batch = batch(nodes as u64, sources.len() as u64) as usize;
    let search = Search::new(graph, weights, batch, with_predecessors, cuda)?;
    cuda.context().set_steps(sources.len() as u64);
    let (mut distances, mut predecessors) = (Vec::<Buffer<f64>>::new(), Vec::<Buffer<u32>>::new());
    for sources in sources.chunks(batch) {
        search.find_distances(sources, cuda)?;
        let items = nodes * sources.len();
        distances.push(cuda.download(&search.distances.slice(..items))?);
        if let Some(tree) = &search.tree {
            search.find_predecessors(tree, sources, cuda)?;
            predecessors.push(cuda.download(&tree.predecessors.slice(..items))?);
        }
        cuda.context().advance(sources.len() as u64);
    }
    Ok(ShortestPathOutput {
        weighted_distances: Some(super::joined(distances)),
        predecessors: super::joined(predecessors),
        ..ShortestPathOutput::default()
    })
}

/// The graph and the state of a batch on the device.
struct Search {
    nodes: u32,
    /// By which the threshold rises.
    width: f64,
    multiprocessors: u32,
    cancel: CancelFlag,
    out_row: DeviceBuffer<u32>,
    out_column: DeviceBuffer<u32>,
    weights: DeviceBuffer<f32>,
    distances: DeviceBuffer<f64>,
    marks: DeviceBuffer<u32>,
    lists: DeviceBuffer<u32>,
    tree: Option<Tree>,
    progress: DeviceBuffer<u64>,
}

/// The levels of the items on shortest paths, and their predecessors.
struct Tree {
    levels: DeviceBuffer<u32>,
    predecessors: DeviceBuffer<u32>,
}

impl Search {
    fn new(
        graph: &CsrGraph,
        weights: &[f32],
        batch: usize,
        with_predecessors: bool,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let nodes = graph.num_nodes();
        let items = nodes * batch;
        let successors = graph.successors();
        let tree = match with_predecessors {
            true => Some(Tree { levels: cuda.alloc(items)?, predecessors: cuda.alloc(items)? }),
            false => None,
        };
        Ok(Self {
            nodes: nodes as u32,
            width: bucket_width(nodes, weights),
            multiprocessors: cuda.device().multiprocessors,
            cancel: cuda.cancel_flag(),
            out_row: cuda.input(successors.row_offsets())?,
            out_column: cuda.input(successors.column_indices())?,
            weights: cuda.input(weights)?,
            distances: cuda.alloc(items)?,
            marks: cuda.alloc(items)?,
            lists: cuda.alloc(LISTS * items)?,
            tree,
            progress: cuda.alloc(PROGRESS_WORDS)?,
        })
    }

    fn find_distances(&self, sources: &[u32], cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, width, distances, marks, lists, progress, .. } = self;
        let num_sources = sources.len() as u32;
        let sources = cuda.upload(sources)?;
        let items = nodes * num_sources;
        let by_item = Launch::elements(items as usize, u32::MAX);
        cuda.zero(progress)?;
        cuda.launch(&MODULE, "weighted_paths_clear", by_item, &[&items, distances, marks])?;
        let start: [&dyn Arg; 8] = [nodes, &num_sources, &sources, width, distances, marks, lists, progress];
        cuda.launch(&MODULE, "weighted_paths_start", Launch::new(1, 256), &start)?;
        self.run_rounds("weighted_paths_search", num_sources, marks, cuda)
    }

    /// Finds the predecessors once the distances are there.
    fn find_predecessors(
        &self,
        Tree { levels, predecessors }: &Tree,
        sources: &[u32],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { nodes, out_row, out_column, weights, distances, lists, progress, cancel, .. } = self;
        let num_sources = sources.len() as u32;
        let sources = cuda.upload(sources)?;
        let items = nodes * num_sources;
        let by_item = Launch::elements(items as usize, u32::MAX);
        cuda.zero(progress)?;
        cuda.launch(&MODULE, "weighted_paths_clear_levels", by_item, &[&items, levels, predecessors])?;
        let start: [&dyn Arg; 6] = [nodes, &num_sources, &sources, levels, lists, progress];
        cuda.launch(&MODULE, "weighted_paths_start_levels", Launch::new(1, 256), &start)?;
        self.run_rounds("weighted_paths_levels", num_sources, levels, cuda)?;
        let args: [&dyn Arg; 10] =
            [nodes, &num_sources, out_row, out_column, weights, distances, levels, predecessors, progress, cancel];
        let balanced = Launch::elements(items as usize, 6 * self.multiprocessors);
        cuda.launch(&MODULE, "weighted_paths_predecessors", balanced, &args)
    }

    /// Launches an entry until no item is left: wide rounds with all blocks, and narrow ones with few. `state` is the
    /// entry's array with a word for each item.
    fn run_rounds(
        &self,
        entry: &'static str,
        num_sources: u32,
        state: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { nodes, out_row, out_column, weights, distances, lists, progress, cancel, .. } = self;
        let wide_blocks = WIDE_BLOCKS * self.multiprocessors;
        let mut shape = (wide_blocks, WIDE_ROUNDS, u32::MAX);
        loop {
            let (blocks, rounds, max_entries) = shape;
            let args: [&dyn Arg; 12] = [
                nodes,
                &num_sources,
                out_row,
                out_column,
                weights,
                distances,
                state,
                lists,
                progress,
                cancel,
                &rounds,
                &max_entries,
            ];
            cuda.launch(&MODULE, entry, Launch::cooperative(blocks, 256), &args)?;
            let mut words = [0_u64; PROGRESS_WORDS];
            cuda.download_into(progress, &mut words)?;
            let [near, far, ..] = words;
            let entries = if near != 0 { near } else { far };
            if entries == 0 {
                return Ok(());
            }
            let entries = u32::try_from(entries).unwrap_or(u32::MAX);
            let blocks = entries.div_ceil(NARROW_ENTRIES).next_power_of_two().max(4);
            shape = if blocks <= self.multiprocessors {
                (blocks, NARROW_ROUNDS, blocks * NARROW_ENTRIES * NARROW_GROWTH)
            } else {
                (wide_blocks, WIDE_ROUNDS, u32::MAX)
            };
        }
    }
}
