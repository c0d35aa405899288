//! Shortest paths by weights on CUDA, from many sources at once. `weighted_paths.cu` describes the algorithm and what its
//! entries take.

use super::ShortestPathOutput;
use super::targets::Targets;
use super::targets_cuda::TargetsOnDevice;
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
/// The same in a search that may end before it has reached all nodes.
const NARROW_ROUNDS_TO_SOME: u32 = 64;
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
        search.find_distances(sources, NARROW_ROUNDS, |_, _| Ok(false), cuda)?;
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

/// Returns the distances and, if requested, the paths from each source to each target in a graph with weights that are not
/// negative.
///
/// # Errors
/// The paths have more nodes than the input allows; those of the launch context.
pub(super) fn search_to(
    graph: &CsrGraph,
    weights: &[f32],
    sources: &[u32],
    targets: Targets<'_>,
    cuda: &mut LaunchContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let batch = batch(nodes as u64, sources.len() as u64) as usize;
    let search = Search::new(graph, weights, batch, targets.with_paths, cuda)?;
    let mut targets = TargetsOnDevice::new(targets, nodes, batch, cuda)?;
    let (gathered, levels) = (targets.gathered::<f64>(cuda)?, targets.gathered::<u32>(cuda)?);
    cuda.context().set_steps(sources.len() as u64);
    let mut distances = Vec::new();
    for sources in sources.chunks(batch) {
        let to_targets =
            |cuda: &mut LaunchContext<'_>| targets.gather(&search.distances, sources.len(), &gathered, cuda);
        if targets.are_checked(sources.len()) {
            let all_settled = |settled: f64, cuda: &mut LaunchContext<'_>| {
                Ok(to_targets(cuda)?.iter().all(|&distance| distance <= settled))
            };
            search.find_distances(sources, NARROW_ROUNDS_TO_SOME, all_settled, cuda)?;
        } else {
            search.find_distances(sources, NARROW_ROUNDS, |_, _| Ok(false), cuda)?;
        }
        distances.push(to_targets(cuda)?);
        if let Some(tree) = &search.tree {
            // Distances that are not the shortest are longer than those of all targets: no arc leads back from such an item.
            search.find_predecessors(tree, sources, cuda)?;
            let edges = targets.gather(&tree.levels, sources.len(), &levels, cuda)?;
            targets.find_paths(&edges, &tree.predecessors, cuda)?;
        }
        cuda.context().advance(sources.len() as u64);
    }
    let weighted_distances = Some(super::joined(distances));
    Ok(targets.finish(ShortestPathOutput { weighted_distances, ..ShortestPathOutput::default() }))
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

    /// Finds the distances, until `is_done` returns true for the distance up to which all are the shortest. It is called between
    /// launches.
    fn find_distances(
        &self,
        sources: &[u32],
        narrow_rounds: u32,
        is_done: impl FnMut(f64, &mut LaunchContext<'_>) -> Result<bool, KernelError>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { nodes, width, distances, marks, lists, progress, .. } = self;
        let num_sources = sources.len() as u32;
        let sources = cuda.upload(sources)?;
        let items = nodes * num_sources;
        let by_item = Launch::elements(items as usize, u32::MAX);
        cuda.zero(progress)?;
        cuda.launch(&MODULE, "weighted_paths_clear", by_item, &[&items, distances, marks])?;
        let start: [&dyn Arg; 8] = [nodes, &num_sources, &sources, width, distances, marks, lists, progress];
        cuda.launch(&MODULE, "weighted_paths_start", Launch::new(1, 256), &start)?;
        self.run_rounds("weighted_paths_search", num_sources, marks, narrow_rounds, is_done, cuda)
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
        self.run_rounds("weighted_paths_levels", num_sources, levels, NARROW_ROUNDS, |_, _| Ok(false), cuda)?;
        let args: [&dyn Arg; 10] =
            [nodes, &num_sources, out_row, out_column, weights, distances, levels, predecessors, progress, cancel];
        let balanced = Launch::elements(items as usize, 6 * self.multiprocessors);
        cuda.launch(&MODULE, "weighted_paths_predecessors", balanced, &args)
    }

    /// Launches an entry until no item is left, or `is_done`: wide rounds with all blocks, and narrow ones with few. `state` is
    /// the entry's array with a word for each item.
    fn run_rounds(
        &self,
        entry: &'static str,
        num_sources: u32,
        state: &DeviceBuffer<u32>,
        narrow_rounds: u32,
        mut is_done: impl FnMut(f64, &mut LaunchContext<'_>) -> Result<bool, KernelError>,
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
            let [near, far, _, _, _, settled, ..] = words;
            let entries = if near != 0 { near } else { far };
            if entries == 0 || is_done(f64::from_bits(settled), cuda)? {
                return Ok(());
            }
            let entries = u32::try_from(entries).unwrap_or(u32::MAX);
            let blocks = entries.div_ceil(NARROW_ENTRIES).next_power_of_two().max(4);
            shape = if blocks <= self.multiprocessors {
                (blocks, narrow_rounds, blocks * NARROW_ENTRIES * NARROW_GROWTH)
            } else {
                (wide_blocks, WIDE_ROUNDS, u32::MAX)
            };
        }
    }
}
