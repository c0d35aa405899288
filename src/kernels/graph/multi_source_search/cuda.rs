//! The search on CUDA. `multi_source_search.cu` describes the algorithm and what its entries take.

use super::{DistanceSum, SearchGraph, SumBy};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/multi-source-search"));

/// Words for all nodes: 1 GiB for each of three arrays.
const MAX_WORDS: u64 = 1 << 28;
/// Blocks for each multiprocessor: as many as fit.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 4;
/// Nodes of a block: one for each warp.
const NODES_PER_BLOCK: u32 = 8;
/// Levels of a launch.
const LEVELS: u32 = 64;
/// The 32-bit words of `Progress`.
const PROGRESS_WORDS: usize = 7;

/// Returns the words of 32 sources that a pass has for each node, and the entry for as many.
fn words(nodes: u64, sources: u64) -> (u32, &'static str) {
    let fits = |words: u64| nodes.saturating_mul(words) <= MAX_WORDS;
    match sources {
        129.. if fits(32) => (32, "multi_source_search_levels_32"),
        33.. if fits(4) => (4, "multi_source_search_levels_4"),
        _ => (1, "multi_source_search_levels_1"),
    }
}

/// Returns the bytes that a search holds on the device: the arcs in one direction, the words and the sums.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, by: SumBy) -> u64 {
    let graph = nodes.saturating_add(arcs).saturating_mul(4);
    let (words, _) = words(nodes, sources);
    let state = nodes.saturating_mul(12 * u64::from(words) + 1);
    let sums = match by {
        SumBy::Source => 1024,
        SumBy::Node => nodes,
    };
    graph.saturating_add(state).saturating_add(sums.saturating_mul(24)).saturating_add(1 << 14)
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
    let search = Search::new(graph, sources.len(), by, cuda)?;
    cuda.context().set_steps(sources.len() as u64);
    let mut by_source = Vec::new();
    for sources in sources.chunks(32 * search.words as usize) {
        if by == SumBy::Source {
            cuda.zero(&search.sums)?;
        }
        search.run(sources, cuda)?;
        if by == SumBy::Source {
            by_source.extend(distance_sums(&cuda.download(&search.sums.slice(..3 * sources.len()))?));
        }
        cuda.context().advance(sources.len() as u64);
    }
    match by {
        SumBy::Source => Ok(by_source),
        SumBy::Node => Ok(distance_sums(&cuda.download(&search.sums)?).collect()),
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
    progress: DeviceBuffer<u32>,
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

    /// Searches from up to `32 * words` sources.
    fn run(&self, sources: &[u32], cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { nodes, words, by_node, row, column, visit, seen, active, live, sums, progress, .. } = self;
        for array in [seen, active, live, progress] {
            cuda.zero(array)?;
        }
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
            let mut words = [0; PROGRESS_WORDS];
            cuda.download_into(progress, &mut words)?;
            if words[0] == 1 {
                return Ok(());
            }
        }
    }
}
