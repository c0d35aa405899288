//! The counts on CUDA. `modularity_score.cu` describes what its entries take.

use super::CommunityCounts;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/modularity-score"));

/// `NODES_PER_BLOCK` of `modularity_score.cu`.
const NODES_PER_BLOCK: u32 = 2048;
/// Blocks for each multiprocessor of launches whose threads take several nodes.
const BLOCKS: u32 = 8;
/// The 64-bit words of its `Counts`.
const COUNTS_WORDS: usize = 3;

/// Returns the bytes that [`count`] allocates on the device.
pub(in crate::kernels::graph) fn device_memory(nodes: u64, directed: bool) -> u64 {
    nodes.saturating_mul(if directed { 12 } else { 4 }).saturating_add(1 << 12)
}

/// The successors of a graph on the device.
#[derive(Clone, Copy)]
pub(in crate::kernels::graph) struct DeviceGraph {
    pub(in crate::kernels::graph) nodes: u32,
    pub(in crate::kernels::graph) direction: Direction,
    pub(in crate::kernels::graph) offsets: DeviceBuffer<u32>,
    pub(in crate::kernels::graph) columns: DeviceBuffer<u32>,
}

impl DeviceGraph {
    /// Returns the arrays of a graph, which the device keeps if it is stored.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(in crate::kernels::graph) fn new(graph: &CsrGraph, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        Ok(Self {
            nodes: graph.num_nodes() as u32,
            direction: graph.direction(),
            offsets: cuda.input(graph.successors().row_offsets())?,
            columns: cuda.input(graph.successors().column_indices())?,
        })
    }
}

/// Counts on the device. Each community is below the number of nodes.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn count(
    graph: &DeviceGraph,
    communities: &DeviceBuffer<u32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<CommunityCounts, KernelError> {
    let DeviceGraph { nodes, direction, offsets, columns } = graph;
    let counts = cuda.zeroed::<u64>(COUNTS_WORDS)?;
    let is_directed = u32::from(*direction == Direction::Directed);
    let in_degrees = cuda.zeroed::<u32>(is_directed as usize * *nodes as usize)?;
    let cancel = cuda.cancel_flag();
    let blocks = BLOCKS * cuda.device().multiprocessors;
    let by_node = Launch::elements(*nodes as usize, blocks);
    let args: [&dyn Arg; 8] = [nodes, offsets, columns, communities, &is_directed, &in_degrees, &counts, &cancel];
    cuda.launch(&MODULE, "modularity_count_arcs", by_node, &args)?;

    let by_block = Launch::new(nodes.div_ceil(NODES_PER_BLOCK), 256);
    let add_degrees = |by_rows: u32, cuda: &mut LaunchContext<'_>| {
        let sums = cuda.zeroed::<u32>(*nodes as usize)?;
        let args: [&dyn Arg; 6] = [nodes, &by_rows, offsets, &in_degrees, communities, &sums];
        cuda.launch(&MODULE, "modularity_add_degrees", by_block, &args)?;
        Ok::<_, KernelError>(sums)
    };
    let out_sums = add_degrees(1, cuda)?;
    let in_sums = if is_directed == 1 { add_degrees(0, cuda)? } else { out_sums };
    cuda.launch(&MODULE, "modularity_add_products", by_node, &[nodes, &out_sums, &in_sums, &counts])?;

    let counts = cuda.download(&counts)?;
    Ok(CommunityCounts { arcs: columns.len() as u64, internal_arcs: counts[0], degree_products: counts[1] })
}
