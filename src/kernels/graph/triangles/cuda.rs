//! The host side on CUDA. `triangles.cu` describes the algorithm and what its entries take.

use crate::cuda::{Arg, Launch, Module, device_code};
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{Buffer, KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/triangles"));

/// Blocks that the shared memory of a multiprocessor has room for. More would wait, and fewer leave it idle.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;
/// The 32-bit words of `Control`.
const CONTROL_WORDS: usize = 5;

/// Returns the bytes that a run holds on the device, with a graph of this size.
pub(super) fn device_memory(nodes: u64, graph_bytes: u64) -> u64 {
    graph_bytes.saturating_add(nodes.saturating_mul(12))
}

/// Returns how many triangles each node is a corner of.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn count(
    graph: &OrientedGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<Buffer<u64>, KernelError> {
    let nodes = graph.num_nodes() as u32;
    let offsets = cuda.input(graph.arcs().row_offsets())?;
    let columns = cuda.input(graph.arcs().column_indices())?;
    let list = cuda.alloc::<u32>(graph.num_nodes())?;
    let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
    let counts = cuda.zeroed::<u64>(graph.num_nodes())?;
    let cancel = cuda.cancel_flag();

    let args: [&dyn Arg; 4] = [&nodes, &offsets, &list, &control];
    cuda.launch(&MODULE, "triangles_list", Launch::elements(graph.num_nodes(), u32::MAX), &args)?;
    let args: [&dyn Arg; 7] = [&nodes, &offsets, &columns, &list, &control, &counts, &cancel];
    let blocks = nodes.min(BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
    cuda.launch(&MODULE, "triangles_count", Launch::new(blocks, 256), &args)?;
    cuda.download(&counts)
}
