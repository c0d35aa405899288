//! The power iteration on CUDA, for several score vectors in one pass. `pagerank.cu` describes what its entries take.

use super::personalization::Weights;
use super::{PowerIteration, Ranks};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::power_iteration::Limits;
use crate::kernels::graph::power_iteration_cuda::IterationsOnDevice;
use crate::kernels::graph::spmv_cuda::{self, Matrix, Products};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/pagerank"));

/// The most score vectors that go through the graph together.
const MAX_WIDTH: usize = 8;

/// `UNIFORM` and `DENSE` of `pagerank.cu`.
const UNIFORM: u32 = u32::MAX;
const DENSE: u32 = u32::MAX - 1;
/// The 64-bit words of its `Vector`.
const VECTOR_WORDS: usize = 3;

/// Bytes that a run with `vectors` score vectors holds on the device, `dense` of which have weights of their own.
pub(super) fn device_memory(nodes: u64, arcs: u64, vectors: u64, dense: u64) -> u64 {
    let width = vectors.min(MAX_WIDTH as u64);
    // Ranks. All vectors of a pass have weights where one has, and those of every pass stay.
    let weights = vectors.min(dense.saturating_mul(width));
    let state = nodes.saturating_mul(width.saturating_mul(8).saturating_add(weights.saturating_mul(8)));
    // Rows and columns, and the out-degrees and their inverses.
    let graph = nodes.saturating_mul(4).saturating_add(arcs).saturating_mul(4);
    state.saturating_add(graph).saturating_add(spmv_cuda::device_memory(nodes, arcs, width))
}

/// Computes the ranks of each power iteration. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn ranks(
    graph: &CsrGraph,
    is_stored: bool,
    iterations: &[PowerIteration<'_>],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let max_iterations = iterations.iter().map(|iteration| iteration.limits.max_iterations).max().unwrap_or(0);
    let matrix = Matrix::new(graph, is_stored, max_iterations, &MODULE, cuda)?;
    let out_offsets = cuda.input(graph.successors().row_offsets())?;
    cuda.context().set_steps(iterations.len() as u64);
    let mut ranks = Vec::with_capacity(iterations.len());
    let width = iterations.len().min(MAX_WIDTH);
    let vectors = Vectors::new(&matrix, width, out_offsets, cuda)?;
    let products = Products::new(&matrix, width, cuda)?;
    for iterations in iterations.chunks(MAX_WIDTH) {
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
        matrix: &Matrix,
        width: usize,
        out_offsets: DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let nodes = matrix.nodes as usize;
        let contributions = matrix.contributions(width, cuda)?;
        Ok(Self { out_offsets, inverse_degrees: cuda.alloc(nodes)?, ranks: cuda.alloc(nodes * width)?, contributions })
    }
}

fn run_pass(
    matrix: &Matrix,
    vectors: &Vectors,
    products: &Products,
    iterations: &[PowerIteration<'_>],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let Vectors { out_offsets, inverse_degrees, ranks, contributions } = vectors;
    let Products { block_sums, blocks_done, .. } = products;
    let (nodes, width, uniform) = (matrix.nodes, iterations.len() as u32, 1.0 / f64::from(matrix.nodes));
    let weights = cuda.upload(&interleaved_weights(nodes as usize, iterations))?;
    let parameters = cuda.upload(&iterations.iter().flat_map(parameters).collect::<Vec<u64>>())?;
    let limits: Vec<Limits> = iterations.iter().map(|iteration| iteration.limits).collect();
    let on_device = IterationsOnDevice::new(&limits, *contributions, cuda)?;

    let from = &contributions[0];
    let in_pairs = u32::from(matrix.in_pairs());
    let start: [&dyn Arg; 14] = [
        &nodes,
        &matrix.slots,
        &width,
        &in_pairs,
        &uniform,
        &matrix.places,
        out_offsets,
        inverse_degrees,
        &on_device.states,
        &parameters,
        ranks,
        from,
        block_sums,
        blocks_done,
    ];
    cuda.launch(&MODULE, "pagerank_start", matrix.over_nodes(), &start)?;
    let convergences = on_device.run(matrix, products, cuda, |buffers, cuda| {
        let mut update = matrix.update_args(products, &width);
        update.extend([&uniform as &dyn Arg, inverse_degrees, &weights, buffers.states, &parameters, ranks]);
        update.extend([buffers.to as &dyn Arg, block_sums, blocks_done]);
        let entry = matrix.update_entry(["pagerank_update", "pagerank_update_segments"]);
        let launch = Launch { overlapping: matrix.is_in_segments(), ..matrix.over_nodes() };
        cuda.launch(&MODULE, entry, launch, &update)
    })?;
    let used = ranks.slice(..nodes as usize * iterations.len());
    let scores: Vec<Buffer<f64>> = cuda.download_parts(&used, &vec![nodes as usize; iterations.len()])?;
    let ranks = |(scores, convergence)| Ranks { scores, convergence };
    Ok(scores.into_iter().zip(convergences).map(ranks).collect())
}

/// A `Vector` of `pagerank.cu` before the first iteration.
fn parameters(iteration: &PowerIteration<'_>) -> [u64; VECTOR_WORDS] {
    let seed = match iteration.weights {
        Weights::Uniform => UNIFORM,
        Weights::Node(node) => node,
        Weights::Dense { .. } => DENSE,
    };
    [iteration.damping.to_bits(), 0, u64::from(seed)]
}

/// The weights of the vectors if any has dense ones, by node; empty if there are none.
fn interleaved_weights(nodes: usize, iterations: &[PowerIteration<'_>]) -> Vec<f64> {
    let is_dense = |iteration: &PowerIteration<'_>| matches!(iteration.weights, Weights::Dense { .. });
    if !iterations.iter().any(is_dense) {
        return Vec::new();
    }
    let weights = |node| iterations.iter().map(move |iteration| iteration.weights.of(node, nodes));
    (0..nodes).flat_map(weights).collect()
}
