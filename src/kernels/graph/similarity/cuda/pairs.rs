//! The scores of given pairs of nodes on CUDA.

use super::{DeviceGraph, MODULE};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::scan;
use crate::service::{Buffer, KernelError, LaunchContext};

/// Threads of a block that intersects rows, as in `similarity.cu`.
const THREADS: u32 = 128;
/// Blocks that the shared memory of a multiprocessor has room for.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;
/// The most pairs of a launch.
const MAX_PAIRS: usize = 1 << 24;

/// Returns the bytes that [`pair_scores`] allocates on the device.
pub(super) fn device_memory(pairs: u64) -> u64 {
    // The pairs and their scores; pieces, offsets and sums of those of a launch.
    pairs.saturating_mul(16).saturating_add(pairs.min(MAX_PAIRS as u64) * (4 + 8 + 16)).saturating_add(1 << 12)
}

/// Returns the scores of the pairs of several requests.
///
/// # Errors
/// Those of the launch context.
pub(super) fn pair_scores(
    graph: &DeviceGraph,
    requests: &[&[[u32; 2]]],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Buffer<f64>>, KernelError> {
    let pairs = cuda.input_parts(requests.iter().map(|pairs| pairs.as_flattened()))?;
    let len = pairs.len() / 2;
    let scores = cuda.alloc(len)?;
    for start in (0..len).step_by(MAX_PAIRS) {
        let end = len.min(start + MAX_PAIRS);
        score(graph, &pairs.slice(2 * start..2 * end), &scores.slice(start..end), cuda)?;
    }
    let lengths: Vec<usize> = requests.iter().map(|pairs| pairs.len()).collect();
    cuda.download_parts(&scores, &lengths)
}

fn score(
    graph: &DeviceGraph,
    pairs: &DeviceBuffer<u32>,
    scores: &DeviceBuffer<f64>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    let DeviceGraph { nodes, offsets, columns, measure, weights, .. } = graph;
    let count = scores.len() as u32;
    let by_pair = Launch::elements(scores.len(), u32::MAX);
    let pieces = cuda.alloc::<u32>(scores.len())?;
    cuda.launch(&MODULE, "similarity_pieces", by_pair, &[&count, pairs, offsets, &pieces])?;
    let piece_offsets = scan::offsets(&pieces, cuda)?;

    let next = cuda.zeroed::<u64>(1)?;
    let sums = cuda.zeroed::<u64>(2 * scores.len())?;
    let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
    let mut args: Vec<&dyn Arg> =
        vec![nodes, offsets, columns, measure, &count, pairs, &piece_offsets, &next, &sums, scores];
    args.extend(weights.iter().map(|weights| weights as &dyn Arg));
    args.extend([&flag as &dyn Arg, &cancelled]);
    let entry = if weights.is_some() { "similarity_intersect_weighted" } else { "similarity_intersect" };
    let blocks = count.min(BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
    cuda.launch(&MODULE, entry, Launch::new(blocks, THREADS), &args)?;
    cuda.launch(&MODULE, "similarity_score", by_pair, &[offsets, measure, &count, pairs, &piece_offsets, &sums, scores])
}
