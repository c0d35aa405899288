//! Strong components on CUDA. `strong_components.cu` describes the algorithm and what its entries take.

use super::{ConnectedComponentsOutput, cuda::number_components};
use crate::cuda::{Arg, Launch, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/strong-components"));

/// Blocks of a search for each multiprocessor: as many as fit.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 4;
/// Rounds of a launch.
const ROUNDS: u32 = 256;
/// The 32-bit words of `Progress` of `strong_components.cu`.
const PROGRESS_WORDS: usize = 12;
/// Where its `remaining` is.
const REMAINING: usize = 2;
/// The 32-bit words of its `Node`.
const NODE_WORDS: usize = 4;

/// Returns the bytes that a run holds on the device: the graph, the nodes with their lists, the numbers and the sizes.
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    nodes.saturating_mul(49).saturating_add(arcs.saturating_mul(4)).saturating_add(1 << 12)
}

/// Finds the strong components.
///
/// # Errors
/// Those of the launch context.
pub(super) fn components(
    graph: &CsrGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    let n = graph.num_nodes();
    let row = cuda.input(graph.successors().row_offsets())?;
    let column = cuda.input(graph.successors().column_indices())?;
    let nodes = cuda.alloc::<u32>(NODE_WORDS * n)?;
    let representative = cuda.alloc::<u32>(n)?;
    let list = cuda.alloc::<u32>(2 * n)?;
    let lowest_of = cuda.alloc::<u32>(n)?;
    let lowest = cuda.alloc::<u32>(n)?;
    let progress = cuda.zeroed::<u32>(PROGRESS_WORDS)?;
    let cancel = cuda.cancel_flag();

    let count = n as u32;
    let by_node = Launch::elements(n, u32::MAX);
    let start: [&dyn Arg; 6] = [&count, &nodes, &representative, &list, &lowest_of, &progress];
    cuda.launch(&MODULE, "strong_components_start", by_node, &start)?;
    let search: [&dyn Arg; 10] =
        [&count, &row, &column, &nodes, &representative, &list, &lowest_of, &progress, &cancel, &ROUNDS];
    let blocks = by_node.grid[0].min(BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
    loop {
        cuda.launch(&MODULE, "strong_components_search", Launch::cooperative(blocks, 256), &search)?;
        let mut words = [0; PROGRESS_WORDS];
        cuda.download_into(&progress, &mut words)?;
        if words[REMAINING] == 0 {
            break;
        }
    }
    cuda.launch(&MODULE, "strong_components_lowest", by_node, &[&count, &nodes, &lowest_of, &lowest])?;
    number_components(&lowest, cuda)
}
