//! The search on CUDA, in passes or in deep graphs from each source by itself. `multi_source_search.cu` describes the
//! algorithm and what its entries take.

use super::{DEEP_LEVELS, DistanceSum, SearchGraph, SumBy, is_deep};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::breadth_first_search::{self, Arcs, BreadthFirstSearch};
use crate::service::{KernelError, LaunchContext};

static MODULE: Module = Module::embedded(device_code!("graph/multi-source-search"));

/// Words for all nodes: 1 GiB for each of three arrays.
const MAX_WORDS: u64 = 1 << 28;
/// Blocks for each multiprocessor: as many as fit.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 4;
/// Nodes of a block: one for each warp.
const NODES_PER_BLOCK: u32 = 8;
/// Levels of a launch.
const LEVELS: u32 = DEEP_LEVELS as u32;
/// The 64-bit words of `Progress`.
const PROGRESS_WORDS: usize = 7;
/// Blocks that sum the distances from one source, at most.
const SUM_BLOCKS: u32 = 64;

/// Returns the modules that a search launches entries of.
pub(in crate::kernels::graph) fn modules() -> Vec<&'static Module> {
    vec![&MODULE, &breadth_first_search::MODULE]
}

/// Returns the words of 32 sources that a pass has for each node, and the entry for as many.
fn words(nodes: u64, sources: u64) -> (u32, &'static str) {
    let fits = |words: u64| nodes.saturating_mul(words) <= MAX_WORDS;
    match sources {
        129.. if fits(32) => (32, "multi_source_search_levels_32"),
        33.. if fits(4) => (4, "multi_source_search_levels_4"),
        _ => (1, "multi_source_search_levels_1"),
    }
}

/// Returns the bytes that a search holds on the device: the arcs in both directions, the words, the sums, and the state of
/// searches from single sources.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, by: SumBy) -> u64 {
    let graph = nodes.saturating_add(arcs).saturating_mul(8);
    let (words, _) = words(nodes, sources);
    let state = nodes.saturating_mul(12 * u64::from(words) + 1);
    let sums = match by {
        SumBy::Source => 1024_u64.saturating_add(breadth_first_search::batch(nodes, sources)),
        SumBy::Node => nodes.saturating_mul(2),
    };
    graph
        .saturating_add(state)
        .saturating_add(sums.saturating_mul(24))
        .saturating_add(breadth_first_search::state_memory(nodes, sources))
        .saturating_add(1 << 14)
}

/// Returns the sums of the distances from `sources`, for each of them or for each node.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn search(
    graph: SearchGraph<'_>,
    sources: &[u32],
    by: SumBy,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<DistanceSum>, KernelError> {
    cuda.context().set_steps(sources.len() as u64);
    match search_in_passes(graph, sources, by, cuda)? {
        Some(sums) => Ok(sums),
        None => search_from_each(graph, sources, by, cuda),
    }
}

/// As [`search`], with bits for the sources of a pass. Returns `None` if the first pass finds that the graph is deep.
fn search_in_passes(
    graph: SearchGraph<'_>,
    sources: &[u32],
    by: SumBy,
    cuda: &mut LaunchContext<'_>,
) -> Result<Option<Vec<DistanceSum>>, KernelError> {
    let search = Search::new(graph, sources.len(), by, cuda)?;
    let mut by_source = Vec::new();
    for (pass, sources) in sources.chunks(32 * search.words as usize).enumerate() {
        if by == SumBy::Source {
            cuda.zero(&search.sums)?;
        }
        if !search.run(sources, pass == 0, cuda)? {
            return Ok(None);
        }
        if by == SumBy::Source {
            by_source.extend(distance_sums(&cuda.download(&search.sums.slice(..3 * sources.len()))?));
        }
        cuda.context().advance(sources.len() as u64);
    }
    match by {
        SumBy::Source => Ok(Some(by_source)),
        SumBy::Node => Ok(Some(distance_sums(&cuda.download(&search.sums)?).collect())),
    }
}

/// As [`search`], with a distance for each pair of a source and a node.
fn search_from_each(
    graph: SearchGraph<'_>,
    sources: &[u32],
    by: SumBy,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<DistanceSum>, KernelError> {
    let nodes = graph.num_nodes();
    let batch = breadth_first_search::batch(nodes as u64, sources.len() as u64) as usize;
    let arcs = Arcs::new(graph.next, Some(graph.previous), cuda)?;
    let search = BreadthFirstSearch::new(arcs, batch, cuda)?;
    let (entry, launch, num_sums) = match by {
        SumBy::Source => {
            let of_source = Launch::elements(nodes, SUM_BLOCKS);
            let launch = Launch { grid: [of_source.grid[0], batch.min(1 << 15) as u32, 1], ..of_source };
            ("multi_source_search_sum_by_source", launch, batch)
        }
        SumBy::Node => ("multi_source_search_sum_by_node", Launch::elements(nodes, u32::MAX), nodes),
    };
    let sums = cuda.zeroed::<u64>(3 * num_sums)?;
    let mut by_source = Vec::new();
    for sources in sources.chunks(batch) {
        search.run(sources, cuda)?;
        if by == SumBy::Source {
            cuda.zero(&sums)?;
        }
        cuda.launch(&MODULE, entry, launch, &[&(nodes as u32), &(sources.len() as u32), &search.distances, &sums])?;
        if by == SumBy::Source {
            by_source.extend(distance_sums(&cuda.download(&sums.slice(..3 * sources.len()))?));
        }
        cuda.context().advance(sources.len() as u64);
    }
    match by {
        SumBy::Source => Ok(by_source),
        SumBy::Node => Ok(distance_sums(&cuda.download(&sums)?).collect()),
    }
}

fn distance_sums(words: &[u64]) -> impl Iterator<Item = DistanceSum> + '_ {
    words.as_chunks().0.iter().map(|&[count, total, largest]| DistanceSum { count, total, largest })
}

/// The graph and the state of a pass on the device.
struct Search {
    nodes: u32,
    words: u32,
    entry: &'static str,
    by_node: u32,
    row: DeviceBuffer<u32>,
    column: DeviceBuffer<u32>,
    visit: DeviceBuffer<u32>,
    seen: DeviceBuffer<u32>,
    active: DeviceBuffer<u32>,
    live: DeviceBuffer<u32>,
    sums: DeviceBuffer<u64>,
    progress: DeviceBuffer<u64>,
}

impl Search {
    fn new(
        graph: SearchGraph<'_>,
        sources: usize,
        by: SumBy,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let nodes = graph.num_nodes();
        let (words, entry) = words(nodes as u64, sources as u64);
        let sums = match by {
            SumBy::Source => 32 * words as usize,
            SumBy::Node => nodes,
        };
        Ok(Self {
            nodes: nodes as u32,
            words,
            entry,
            by_node: u32::from(by == SumBy::Node),
            row: cuda.input(graph.previous.row_offsets())?,
            column: cuda.input(graph.previous.column_indices())?,
            visit: cuda.alloc(2 * nodes * words as usize)?,
            seen: cuda.alloc(nodes * words as usize)?,
            active: cuda.alloc(3 * nodes.div_ceil(32))?,
            live: cuda.alloc(3 * words as usize)?,
            sums: cuda.zeroed(3 * sums)?,
            progress: cuda.alloc(PROGRESS_WORDS)?,
        })
    }

    /// Searches from up to `32 * words` sources. Returns whether the search has ended; it does not if it `may_stop` and the
    /// graph is deep.
    fn run(&self, sources: &[u32], may_stop: bool, cuda: &mut LaunchContext<'_>) -> Result<bool, KernelError> {
        let Self { nodes, words, by_node, row, column, visit, seen, active, live, sums, progress, .. } = self;
        for array in [seen, active, live] {
            cuda.zero(array)?;
        }
        cuda.zero(progress)?;
        let num_sources = sources.len() as u32;
        let sources = cuda.upload(sources)?;
        let start: [&dyn Arg; 7] = [words, &num_sources, &sources, visit, seen, active, live];
        cuda.launch(&MODULE, "multi_source_search_start", Launch::new(1, 256), &start)?;
        let cancel = cuda.cancel_flag();
        let blocks = nodes.div_ceil(NODES_PER_BLOCK).min(BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
        let levels: [&dyn Arg; 12] =
            [nodes, row, column, visit, seen, active, live, sums, by_node, progress, &cancel, &LEVELS];
        loop {
            cuda.launch(&MODULE, self.entry, Launch::cooperative(blocks, 256), &levels)?;
            let mut words = [0_u64; PROGRESS_WORDS];
            cuda.download_into(progress, &mut words)?;
            let [all_pairs, level_pairs, _, finished_and_depth, ..] = words;
            let (finished, depth) = (finished_and_depth as u32, finished_and_depth >> 32);
            if finished == 1 {
                return Ok(true);
            }
            if may_stop && is_deep(depth, level_pairs, all_pairs) {
                return Ok(false);
            }
        }
    }
}
