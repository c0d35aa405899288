//! The nodes that are most similar to given ones on CUDA.

use super::{DeviceGraph, MODULE};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::{scan, shared_memory};
use crate::service::{KernelError, LaunchContext};

/// Threads of a block that searches, as in `similarity.cu`.
const THREADS: u32 = 512;
/// Blocks of it for each multiprocessor.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 2;
/// The part of a multiprocessor's shared memory that a block takes. The rest is left to the L1 cache, for the rows.
const SHARED_PARTS: u32 = 3;
/// Shared memory of its variables, and what the device adds for a block.
const STATIC_SHARED: u32 = 10 << 10;
/// The least dynamic shared memory: room for the largest buffer of candidates and a table.
const MIN_SHARED: u32 = 38 << 10;
/// Wedges of a share if all multiprocessors have work anyway, and the fewest.
const MAX_SHARE: u64 = 1 << 20;
const MIN_SHARE: u64 = 1 << 14;
/// Bytes for the candidates of the shares of a launch.
const SHARE_BYTES: u64 = 256 << 20;
/// Bytes of a score and a node.
const CANDIDATE_BYTES: u64 = 12;

/// Returns the bytes that [`most_similar`] allocates on the device.
pub(super) fn device_memory(count: u64, each: u64) -> u64 {
    let candidates = count.saturating_mul(each).saturating_mul(CANDIDATE_BYTES);
    candidates.saturating_add(count.saturating_mul(24)).saturating_add(SHARE_BYTES)
}

/// Candidates on the device, the same number for each source.
pub(super) struct SimilarNodes {
    pub(super) scores: DeviceBuffer<f64>,
    pub(super) nodes: DeviceBuffer<u32>,
}

/// How blocks search.
struct Plan {
    /// The most similar nodes of each source.
    wanted: u32,
    /// Candidates that a block has room for, and the words of its table.
    capacity: u32,
    table_words: u32,
    /// Wedges of a share.
    share: u64,
    /// Sources of a launch.
    sources: usize,
}

impl Plan {
    fn new(graph: &DeviceGraph, sources: usize, wanted: u32, cuda: &LaunchContext<'_>) -> Self {
        let device = cuda.device();
        let shared = (shared_memory(device.compute_capability) / SHARED_PARTS - STATIC_SHARED).max(MIN_SHARED);
        let capacity = (wanted + THREADS).next_power_of_two();
        let table_words = shared / 4 - 3 * capacity;
        // Enough shares for all blocks, several times over, if the graph is like most.
        let blocks = u64::from(BLOCKS_PER_MULTIPROCESSOR * device.multiprocessors);
        let arcs = graph.arcs as u64;
        let work = (arcs / u64::from(graph.nodes) + 1).saturating_pow(3).min(arcs).saturating_mul(sources as u64);
        let share = (work / (8 * blocks)).clamp(MIN_SHARE, MAX_SHARE);
        // A source has at most as many wedges as the graph has arcs, and a share at least one range.
        let most_shares = (arcs / share + 1).min(3 * u64::from(graph.nodes) / u64::from(table_words) + 1);
        let each = most_shares.saturating_mul(wanted.into()).saturating_mul(CANDIDATE_BYTES);
        Self { wanted, capacity, table_words, share, sources: (SHARE_BYTES / each).max(1) as usize }
    }

    fn shared(&self) -> u32 {
        4 * (self.table_words + 3 * self.capacity)
    }
}

/// Returns the `wanted` nodes that are most similar to each of `sources`, the best first. There are as many.
///
/// # Errors
/// Those of the launch context.
pub(super) fn most_similar(
    graph: &DeviceGraph,
    sources: &DeviceBuffer<u32>,
    wanted: u32,
    cuda: &mut LaunchContext<'_>,
) -> Result<SimilarNodes, KernelError> {
    let each = wanted as usize;
    let found = SimilarNodes { scores: cuda.alloc(sources.len() * each)?, nodes: cuda.alloc(sources.len() * each)? };
    let plan = Plan::new(graph, sources.len(), wanted, cuda);
    cuda.context().set_steps(sources.len() as u64);
    for start in (0..sources.len()).step_by(plan.sources) {
        let end = sources.len().min(start + plan.sources);
        let of_launch = SimilarNodes {
            scores: found.scores.slice(start * each..end * each),
            nodes: found.nodes.slice(start * each..end * each),
        };
        search(graph, &plan, &sources.slice(start..end), &of_launch, cuda)?;
        cuda.context().advance((end - start) as u64);
    }
    Ok(found)
}

fn search(
    graph: &DeviceGraph,
    plan: &Plan,
    sources: &DeviceBuffer<u32>,
    found: &SimilarNodes,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    let DeviceGraph { nodes, offsets, columns, measure, weights, .. } = graph;
    let Plan { wanted, capacity, table_words, share, .. } = plan;
    let count = sources.len() as u32;
    let wedges = cuda.alloc::<u64>(sources.len())?;
    let shares = cuda.alloc::<u32>(sources.len())?;
    let args: [&dyn Arg; 10] =
        [nodes, offsets, columns, measure, table_words, share, &count, sources, &wedges, &shares];
    // A warp for each source.
    cuda.launch(&MODULE, "similarity_plan", Launch::new(count.div_ceil(8), 256), &args)?;
    let share_offsets = scan::offsets(&shares, cuda)?;
    let total = cuda.download(&share_offsets.slice(sources.len()..))?[0];

    let more = (total as usize - sources.len()) * *wanted as usize;
    let (more_scores, more_nodes) = (cuda.alloc::<f64>(more)?, cuda.alloc::<u32>(more)?);
    let next = cuda.zeroed::<u64>(1)?;
    let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
    let mut args: Vec<&dyn Arg> = vec![
        nodes,
        offsets,
        columns,
        measure,
        table_words,
        capacity,
        wanted,
        &count,
        sources,
        &wedges,
        &share_offsets,
        &next,
        &found.scores,
        &found.nodes,
        &more_scores,
        &more_nodes,
    ];
    args.extend(weights.iter().map(|weights| weights as &dyn Arg));
    args.extend([&flag as &dyn Arg, &cancelled]);
    let entry = if weights.is_some() { "similarity_search_weighted" } else { "similarity_search" };
    let most_blocks = BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors;
    let blocks = total.min(most_blocks.into()) as u32;
    cuda.launch(&MODULE, entry, Launch { shared: plan.shared(), ..Launch::new(blocks, THREADS) }, &args)?;
    if more > 0 {
        let args: [&dyn Arg; 9] =
            [capacity, wanted, &count, sources, &share_offsets, &found.scores, &found.nodes, &more_scores, &more_nodes];
        let launch = Launch { shared: 12 * capacity, ..Launch::new(count.min(4 * most_blocks), THREADS) };
        cuda.launch(&MODULE, "similarity_merge", launch, &args)?;
    }
    Ok(())
}
