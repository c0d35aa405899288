//! The power iteration on CUDA. `eigenvector_centrality.cu` describes what its entries take.

use super::EigenvectorCentralityOutput;
use crate::cuda::{Arg, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::power_iteration::{Limits, repeat_for_all};
use crate::kernels::graph::power_iteration_cuda::{self, IterationsOnDevice};
use crate::kernels::graph::spmv_cuda::{Matrix, Products};
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/eigenvector-centrality"));

/// Bytes that a run holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    // The scores.
    power_iteration_cuda::device_memory(nodes, arcs, 1, 1)
}

/// Computes the scores at which each of the limits stops. The predecessors of the graph are
/// [made](CsrGraph::make_predecessors).
pub(super) fn scores(
    graph: &CsrGraph,
    is_stored: bool,
    limits: &[Limits],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<EigenvectorCentralityOutput>, KernelError> {
    let max_iterations = limits.iter().map(|limits| limits.max_iterations).max().unwrap_or(0);
    let matrix = Matrix::new(graph, is_stored, max_iterations, &MODULE, cuda)?;
    let products = Products::new(&matrix, 1, cuda)?;
    let nodes = graph.num_nodes();
    let (values, mut contributions) = (cuda.alloc::<f64>(nodes)?, matrix.contributions(1, cuda)?);
    let norm = cuda.alloc::<f64>(1)?;
    contributions.iter().try_for_each(|contributions| cuda.zero(contributions))?;
    let uniform = 1.0 / nodes as f64;
    let start: [&dyn Arg; 5] = [&matrix.nodes, &uniform, &matrix.places, &values, &contributions[0]];
    cuda.launch(&MODULE, "eigenvector_start", matrix.over_nodes(), &start)?;
    let stopped = repeat_for_all(limits, |limits| {
        let limits = [limits];
        let iterations = IterationsOnDevice::resume(&limits, contributions, cuda)?;
        let convergences = iterations.run(&matrix, &products, cuda, |buffers, cuda| {
            let Products { block_sums, blocks_done, .. } = &products;
            let mut update = matrix.update_args(&products, &1_u32);
            update.extend([buffers.states as &dyn Arg, &values, &norm, block_sums, blocks_done]);
            let entry = matrix.update_entry(["eigenvector_update", "eigenvector_update_segments"]);
            cuda.launch(&MODULE, entry, matrix.over_nodes(), &update)?;
            let mut normalize: Vec<&dyn Arg> = vec![&matrix.nodes, &1_u32, &matrix.places, buffers.states, &norm];
            normalize.extend([buffers.from as &dyn Arg, &values, buffers.to, block_sums, blocks_done]);
            cuda.launch(&MODULE, "eigenvector_normalize", matrix.over_nodes(), &normalize)
        })?;
        let [convergence] = convergences[..] else { unreachable!("one vector is iterated") };
        // Each iteration swaps the two; launches after the last did nothing.
        if convergence.iterations % 2 == 1 {
            contributions.swap(0, 1);
        }
        Ok((convergence, cuda.download(&values)?))
    })?;
    Ok(stopped.into_iter().map(|(scores, convergence)| EigenvectorCentralityOutput::new(scores, convergence)).collect())
}
