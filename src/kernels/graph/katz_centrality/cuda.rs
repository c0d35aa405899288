//! The power iteration on CUDA. `katz_centrality.cu` describes what its entries take.

use super::{KatzCentralityInput, KatzCentralityOutput};
use crate::cuda::{Arg, DeviceBuffer, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::power_iteration::Limits;
use crate::kernels::graph::power_iteration_cuda::{self, IterationsOnDevice};
use crate::kernels::graph::spmv_cuda::{Matrix, Products};
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/katz-centrality"));

/// The most score vectors that go through the graph together.
const MAX_WIDTH: usize = 8;

/// Bytes that a run with `vectors` score vectors holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64, vectors: u64) -> u64 {
    let width = vectors.min(MAX_WIDTH as u64);
    // Scores; and the betas, of which those of every pass stay.
    power_iteration_cuda::device_memory(nodes, arcs, width.saturating_add(vectors), width)
}

/// Computes the scores of each input. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn scores(
    graph: &CsrGraph,
    is_stored: bool,
    inputs: &[&KatzCentralityInput],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<KatzCentralityOutput>, KernelError> {
    let max_iterations = inputs.iter().map(|input| input.max_iterations).max().unwrap_or(0);
    let matrix = Matrix::new(graph, is_stored, max_iterations, &MODULE, cuda)?;
    cuda.context().set_steps(inputs.len() as u64);
    let width = inputs.len().min(MAX_WIDTH);
    let products = Products::new(&matrix, width, cuda)?;
    let vectors = Vectors {
        contributions: matrix.contributions(width, cuda)?,
        values: cuda.alloc(graph.num_nodes() * width)?,
        squares: cuda.alloc(width)?,
    };
    let mut outputs = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(MAX_WIDTH) {
        outputs.extend(run_pass(graph, &matrix, &vectors, &products, inputs, cuda)?);
        cuda.context().advance(inputs.len() as u64);
    }
    Ok(outputs)
}

/// The state of a pass on the device, for up to as many vectors as it was made for.
struct Vectors {
    contributions: [DeviceBuffer<f64>; 2],
    values: DeviceBuffer<f64>,
    /// The sum of the squares of the scores of each vector.
    squares: DeviceBuffer<f64>,
}

fn run_pass(
    graph: &CsrGraph,
    matrix: &Matrix,
    vectors: &Vectors,
    products: &Products,
    inputs: &[&KatzCentralityInput],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<KatzCentralityOutput>, KernelError> {
    let Vectors { contributions, values, squares } = vectors;
    let Products { block_sums, blocks_done, .. } = products;
    let (nodes, width) = (graph.num_nodes(), inputs.len() as u32);
    let mut betas = Vec::with_capacity(nodes * inputs.len());
    inputs.iter().for_each(|input| input.extend_with_betas(&mut betas, nodes));
    let betas = cuda.upload(&betas)?;
    let alphas = cuda.upload(&inputs.iter().map(|input| input.alpha).collect::<Vec<f64>>())?;
    cuda.zero(values)?;
    let limits: Vec<Limits> = inputs.iter().map(|input| input.limits(graph)).collect();
    let iterations = IterationsOnDevice::new(&limits, *contributions, cuda)?;
    let convergences = iterations.run(matrix, products, cuda, |buffers, cuda| {
        let mut update = matrix.update_args(products, &width);
        update.extend([buffers.states as &dyn Arg, &alphas, &betas, values, buffers.to, squares]);
        update.extend([block_sums as &dyn Arg, blocks_done]);
        let entry = matrix.update_entry(["katz_update", "katz_update_segments"]);
        cuda.launch(&MODULE, entry, matrix.over_nodes(), &update)
    })?;
    let of_vector = |vector: usize| vector * nodes..(vector + 1) * nodes;
    for (vector, _) in inputs.iter().enumerate().filter(|(_, input)| input.normalized) {
        let (squares, values) = (squares.slice(vector..=vector), values.slice(of_vector(vector)));
        cuda.launch(&MODULE, "katz_normalize", matrix.over_nodes(), &[&matrix.nodes, &squares, &values])?;
    }
    let used = values.slice(..nodes * inputs.len());
    let scores = cuda.download_parts(&used, &vec![nodes; inputs.len()])?;
    let output = |(scores, convergence)| KatzCentralityOutput::new(scores, convergence);
    Ok(scores.into_iter().zip(convergences).map(output).collect())
}
