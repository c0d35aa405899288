//! Weak components on CUDA. `connected_components.cu` describes the algorithm and what its entries take.

use super::ConnectedComponentsOutput;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/connected-components"));

/// Blocks for each multiprocessor of the launch that balances its load by itself.
const BALANCED_BLOCKS: u32 = 6;
/// `SCAN_TILE` of `scan.cuh`.
const SCAN_TILE: usize = 4096;
/// The words of `Control` of `connected_components.cu`.
const CONTROL_WORDS: usize = 5;
/// Where its `num_components` is.
const NUM_COMPONENTS: usize = 4;

/// Bytes that a run holds on the device: the graph, the parents, the numbers and the sizes.
pub(in crate::kernels::graph) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    nodes.saturating_mul(16).saturating_add(arcs.saturating_mul(4)).saturating_add(1 << 12)
}

/// Finds the weak components.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn components(
    graph: &CsrGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    let nodes = graph.num_nodes();
    let n = nodes as u32;
    let skips_largest = u32::from(graph.direction() == Direction::Undirected);
    let row = cuda.input(graph.successors().row_offsets())?;
    let column = cuda.input(graph.successors().column_indices())?;
    let parent = cuda.alloc::<u32>(nodes)?;
    let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
    let cancel = cuda.cancel_flag();

    let by_node = Launch::elements(nodes, u32::MAX);
    let balanced = Launch::elements(nodes, BALANCED_BLOCKS * cuda.device().multiprocessors);
    let compress: [&dyn Arg; 4] = [&n, &parent, &control, &cancel];
    let sampled: [&dyn Arg; 6] = [&n, &row, &column, &parent, &control, &cancel];
    let rest: [&dyn Arg; 7] = [&n, &skips_largest, &row, &column, &parent, &control, &cancel];
    cuda.launch(&MODULE, "components_start", by_node, &[&n, &row, &column, &parent])?;
    cuda.launch(&MODULE, "components_compress", by_node, &compress)?;
    cuda.launch(&MODULE, "components_join_sampled", by_node, &sampled)?;
    cuda.launch(&MODULE, "components_compress", by_node, &compress)?;
    cuda.launch(&MODULE, "components_guess_largest", Launch::new(1, 256), &[&n, &parent, &control])?;
    cuda.launch(&MODULE, "components_join_rest", balanced, &rest)?;
    cuda.launch(&MODULE, "components_compress", by_node, &compress)?;
    number(&parent, &control, cuda)
}

/// Numbers the components on the device, given the lowest node of the component of each node, in place of which it puts
/// the number.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn number_components(
    lowest: &DeviceBuffer<u32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
    number(lowest, &control, cuda)
}

fn number(
    parent: &DeviceBuffer<u32>,
    control: &DeviceBuffer<u32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    let nodes = parent.len();
    let n = nodes as u32;
    let number = cuda.alloc::<u32>(nodes)?;
    let tiles = cuda.zeroed::<u64>(nodes.div_ceil(SCAN_TILE))?;
    let scan = Launch::new(tiles.len() as u32, 256);
    cuda.launch(&MODULE, "components_number", scan, &[&n, parent, &tiles, &number, control])?;
    let num_components = cuda.download(control)?[NUM_COMPONENTS];
    let sizes = cuda.zeroed::<u32>(num_components as usize)?;
    let by_node = Launch::elements(nodes, u32::MAX);
    cuda.launch(&MODULE, "components_label", by_node, &[&n, &number, parent, &sizes, control])?;
    let [components, sizes] = cuda.download_all([parent, &sizes])?;
    Ok(ConnectedComponentsOutput { components, sizes, num_components })
}
