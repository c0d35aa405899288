//! The power iteration on CUDA, for several score vectors in one pass. `pagerank.cu` describes what its entries take.

use super::personalization::Weights;
use super::{PowerIteration, Ranks};
use crate::cuda::{Arg, DeviceBuffer, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::spmv_cuda::{self, Matrix, Products};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/pagerank"));

/// The most score vectors that go through the graph together.
const MAX_WIDTH: u64 = 8;
/// The most iterations that are launched before the host reads whether all vectors are done. Launches after that do
/// nothing.
const MAX_ITERATIONS_PER_CHECK: u64 = 4;
/// Arcs times vectors that a device multiplies in some milliseconds. A cancelled run goes on until the launches end
/// that are queued already, so what is queued of a large graph is limited.
const MAX_QUEUED_PRODUCTS: u64 = 1 << 30;

/// `UNIFORM` and `DENSE` of `pagerank.cu`.
const UNIFORM: u32 = u32::MAX;
const DENSE: u32 = u32::MAX - 1;
/// The 64-bit words of its `Column`.
const COLUMN_WORDS: usize = 6;

/// The most vectors that go through a graph with this many arcs together.
fn max_width(arcs: u64) -> u64 {
    (MAX_QUEUED_PRODUCTS / arcs.max(1)).clamp(1, MAX_WIDTH)
}

/// Bytes that a run with `vectors` score vectors holds on the device, `dense` of which have weights of their own.
pub(super) fn device_memory(nodes: u64, arcs: u64, vectors: u64, dense: u64) -> u64 {
    let width = vectors.min(max_width(arcs));
    // Ranks and two arrays of contributions. All vectors of a pass have weights where one has, and those of every pass
    // stay.
    let weights = vectors.min(dense.saturating_mul(width));
    let state = nodes.saturating_mul(width.saturating_mul(24).saturating_add(weights.saturating_mul(8)));
    // Rows and columns, and the out-degrees and their inverses.
    let graph = nodes.saturating_mul(4).saturating_add(arcs).saturating_mul(4);
    state.saturating_add(graph).saturating_add(spmv_cuda::device_memory(nodes, arcs, width))
}

/// Computes the ranks of each power iteration. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn ranks(
    graph: &CsrGraph,
    iterations: &[PowerIteration<'_>],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let matrix = Matrix::new(graph.predecessors(), &MODULE, cuda)?;
    let out_offsets = cuda.input(graph.successors().row_offsets())?;
    cuda.context().set_steps(iterations.len() as u64);
    let mut ranks = Vec::with_capacity(iterations.len());
    let max_width = max_width(graph.num_arcs() as u64) as usize;
    let width = iterations.len().min(max_width);
    let vectors = Vectors::new(matrix.nodes as usize, width, out_offsets, cuda)?;
    let products = Products::new(&matrix, width, cuda)?;
    for iterations in iterations.chunks(max_width) {
        ranks.extend(run_pass(&matrix, &vectors, &products, iterations, cuda)?);
        cuda.context().advance(iterations.len() as u64);
    }
    Ok(ranks)
}

/// The state of a pass on the device, for up to as many vectors as it was made for.
struct Vectors {
    out_offsets: DeviceBuffer<u32>,
    /// 1 / out-degree of each node; 0 where there are no successors.
    inverse_degrees: DeviceBuffer<f64>,
    ranks: DeviceBuffer<f64>,
    contributions: [DeviceBuffer<f64>; 2],
}

impl Vectors {
    fn new(
        nodes: usize,
        width: usize,
        out_offsets: DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let len = nodes * width;
        let contributions = [cuda.alloc(len)?, cuda.alloc(len)?];
        Ok(Self { out_offsets, inverse_degrees: cuda.alloc(nodes)?, ranks: cuda.alloc(len)?, contributions })
    }
}

fn run_pass(
    matrix: &Matrix,
    vectors: &Vectors,
    products: &Products,
    iterations: &[PowerIteration<'_>],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let Matrix { nodes, chunks, offsets, columns, ranks: row_ranks, flags, chunk_ranks } = matrix;
    let Vectors { out_offsets, inverse_degrees, ranks, contributions } = vectors;
    let Products { sums, carries, block_sums, blocks_done } = products;
    let [mut from, mut to] = *contributions;
    let (width, uniform) = (iterations.len() as u32, 1.0 / f64::from(*nodes));
    let products_of_iteration = (columns.len() as u64 * u64::from(width)).max(1);
    let iterations_per_check = (MAX_QUEUED_PRODUCTS / products_of_iteration).clamp(1, MAX_ITERATIONS_PER_CHECK);
    let weights = cuda.upload(&interleaved_weights(*nodes as usize, iterations))?;
    let state = cuda.upload(&iterations.iter().flat_map(column).collect::<Vec<u64>>())?;

    let start: [&dyn Arg; 10] =
        [nodes, &width, &uniform, out_offsets, inverse_degrees, &state, ranks, &from, block_sums, blocks_done];
    cuda.launch(&MODULE, "pagerank_start", matrix.over_nodes(), &start)?;
    loop {
        for _ in 0..iterations_per_check {
            let multiply: [&dyn Arg; 12] =
                [nodes, chunks, &width, offsets, columns, row_ranks, flags, chunk_ranks, &state, &from, sums, carries];
            cuda.launch(&MODULE, "pagerank_multiply", matrix.multiply(), &multiply)?;
            let update: [&dyn Arg; 15] = [
                nodes,
                chunks,
                &width,
                &uniform,
                offsets,
                row_ranks,
                sums,
                carries,
                inverse_degrees,
                &weights,
                &state,
                ranks,
                &to,
                block_sums,
                blocks_done,
            ];
            cuda.launch(&MODULE, "pagerank_update", matrix.over_nodes(), &update)?;
            std::mem::swap(&mut from, &mut to);
        }
        let words = cuda.download(&state)?;
        let (words, _) = words.as_chunks::<COLUMN_WORDS>();
        if words.iter().all(is_done) {
            return collect(*nodes as usize, ranks, iterations, words, cuda);
        }
    }
}

/// A `Column` of `pagerank.cu` before the first iteration.
fn column(iteration: &PowerIteration<'_>) -> [u64; COLUMN_WORDS] {
    let seed = match iteration.weights {
        Weights::Uniform => UNIFORM,
        Weights::Node(node) => node,
        Weights::Dense { .. } => DENSE,
    };
    let limits = u64::from(seed) | u64::from(iteration.max_iterations) << 32;
    [iteration.damping.to_bits(), iteration.tolerance.to_bits(), 0, 0, limits, 0]
}

fn is_done(column: &[u64; COLUMN_WORDS]) -> bool {
    column[5] >> 32 != 0
}

/// The weights of the columns that have dense ones, by node; empty if there are none.
fn interleaved_weights(nodes: usize, iterations: &[PowerIteration<'_>]) -> Vec<f64> {
    let is_dense = |iteration: &PowerIteration<'_>| matches!(iteration.weights, Weights::Dense { .. });
    if !iterations.iter().any(is_dense) {
        return Vec::new();
    }
    let weights = |node| iterations.iter().map(move |iteration| iteration.weights.of(node, nodes));
    (0..nodes).flat_map(weights).collect()
}

fn collect(
    nodes: usize,
    ranks: &DeviceBuffer<f64>,
    iterations: &[PowerIteration<'_>],
    words: &[[u64; COLUMN_WORDS]],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let used = ranks.slice(..nodes * iterations.len());
    let scores: Vec<Buffer<f64>> = cuda.download_parts(&used, &vec![nodes; iterations.len()])?;
    let ranks = |((scores, words), iteration): ((Buffer<f64>, &[u64; COLUMN_WORDS]), &PowerIteration<'_>)| {
        let difference = f64::from_bits(words[3]);
        Ranks { scores, iterations: words[5] as u32, difference, converged: difference < iteration.tolerance }
    };
    Ok(scores.into_iter().zip(words).zip(iterations).map(ranks).collect())
}
