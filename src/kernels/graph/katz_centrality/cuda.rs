//! The power iteration on CUDA. `katz_centrality.cu` describes what its entries take.

use super::{KatzCentralityInput, KatzCentralityOutput};
use crate::cuda::{Arg, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::power_iteration_cuda::{self, IterationsOnDevice};
use crate::kernels::graph::spmv_cuda::{Matrix, Products};
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/katz-centrality"));

/// Bytes that a run holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    // Scores and betas.
    power_iteration_cuda::device_memory(nodes, arcs, 2)
}

/// Computes the scores. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn scores(
    graph: &CsrGraph,
    is_stored: bool,
    input: &KatzCentralityInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<KatzCentralityOutput, KernelError> {
    let matrix = Matrix::new(graph, is_stored, input.max_iterations, &MODULE, cuda)?;
    let products = Products::new(&matrix, 1, cuda)?;
    let nodes = graph.num_nodes();
    let betas: Vec<f64> = (0..nodes).map(|node| input.beta(node)).collect();
    let (betas, values) = (cuda.upload(&betas)?, cuda.zeroed::<f64>(nodes)?);
    let contributions = matrix.contributions(1, cuda)?;
    let squares = cuda.alloc::<f64>(1)?;
    let limits = [input.limits(graph)];
    let iterations = IterationsOnDevice::new(&limits, contributions, cuda)?;
    let convergences = iterations.run(&matrix, &products, cuda, |buffers, cuda| {
        let Products { block_sums, blocks_done, .. } = &products;
        let mut update = matrix.update_args(&products, &1_u32);
        update.extend([buffers.states as &dyn Arg, &input.alpha, &betas, &values, buffers.to, &squares]);
        update.extend([block_sums as &dyn Arg, blocks_done]);
        let entry = matrix.update_entry(["katz_update", "katz_update_segments"]);
        cuda.launch(&MODULE, entry, matrix.over_nodes(), &update)
    })?;
    if input.normalized {
        cuda.launch(&MODULE, "katz_normalize", matrix.over_nodes(), &[&matrix.nodes, &squares, &values])?;
    }
    let [convergence] = convergences[..] else { unreachable!("one vector is iterated") };
    Ok(KatzCentralityOutput::new(cuda.download(&values)?, convergence))
}
