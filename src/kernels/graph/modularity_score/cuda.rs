//! The counts on CUDA. `modularity_score.cu` describes what its entries take.

use super::CommunityCounts;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::arc_units::ArcUnits;
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/modularity-score"));

/// `NODES_PER_BLOCK` of `modularity_score.cu`.
const NODES_PER_BLOCK: u32 = 1024;
/// Blocks for each multiprocessor of launches whose threads take several nodes.
const BLOCKS: u32 = 8;
/// The 64-bit words of its `Counts`.
const COUNTS_WORDS: usize = 5;

/// Returns the bytes that [`count`] allocates on the device.
pub(in crate::kernels::graph) fn device_memory(nodes: u64, is_directed: bool, is_weighted: bool) -> u64 {
    // The sums, the out-degrees, and both of the other direction.
    let arrays = 1 + u64::from(is_weighted) + 2 * u64::from(is_directed);
    nodes.saturating_mul(8 * arrays).saturating_add(1 << 12)
}

/// The weights of a graph's arcs on the device.
#[derive(Clone, Copy)]
pub(in crate::kernels::graph) struct DeviceWeights {
    pub(in crate::kernels::graph) weights: DeviceBuffer<f32>,
    /// The units of a weight of 1.
    pub(in crate::kernels::graph) scale: f64,
}

impl DeviceWeights {
    /// Returns the weights that are used, if they are.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(in crate::kernels::graph) fn new(
        units: ArcUnits<'_>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Option<Self>, KernelError> {
        match units.weights() {
            Some((weights, scale)) => Ok(Some(Self { weights: cuda.input(weights)?, scale })),
            None => Ok(None),
        }
    }
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

/// Counts on the device: arcs, or their weights. Each community is below the number of nodes.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn count(
    graph: &DeviceGraph,
    weights: Option<&DeviceWeights>,
    communities: &DeviceBuffer<u32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<CommunityCounts, KernelError> {
    let DeviceGraph { nodes: n, direction, offsets, columns } = graph;
    let nodes = *n as usize;
    let counts = cuda.zeroed::<u64>(COUNTS_WORDS)?;
    let (is_weighted, is_directed) = (u32::from(weights.is_some()), u32::from(*direction == Direction::Directed));
    let DeviceWeights { weights, scale } = match weights {
        Some(weights) => *weights,
        None => DeviceWeights { weights: cuda.alloc(0)?, scale: 1.0 },
    };
    let out_degrees = cuda.zeroed::<u64>(is_weighted as usize * nodes)?;
    let in_degrees = cuda.zeroed::<u64>(is_directed as usize * nodes)?;
    let cancel = cuda.cancel_flag();
    let by_node = Launch::elements(nodes, BLOCKS * cuda.device().multiprocessors);
    let args: [&dyn Arg; 12] = [
        n,
        offsets,
        columns,
        &is_weighted,
        &weights,
        &scale,
        communities,
        &out_degrees,
        &is_directed,
        &in_degrees,
        &counts,
        &cancel,
    ];
    cuda.launch(&MODULE, "modularity_count_arcs", by_node, &args)?;

    let out_sums = cuda.zeroed::<u64>(nodes)?;
    launch_add_degrees(1 - is_weighted, offsets, &out_degrees, communities, &out_sums, cuda)?;
    let in_sums = match direction {
        Direction::Undirected => out_sums,
        Direction::Directed => {
            let in_sums = cuda.zeroed::<u64>(nodes)?;
            launch_add_degrees(0, offsets, &in_degrees, communities, &in_sums, cuda)?;
            in_sums
        }
    };
    cuda.launch(&MODULE, "modularity_add_products", by_node, &[n, &out_sums, &in_sums, &counts])?;

    let counts = cuda.download(&counts)?;
    let degree_products = u128::from(counts[3]) << 64 | u128::from(counts[2]);
    Ok(CommunityCounts { arcs: counts[0], internal_arcs: counts[1], degree_products })
}

/// Sums up the degrees of the nodes of each community, which is below the number of `sums`.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn add_degrees(
    degrees: &DeviceBuffer<u64>,
    communities: &DeviceBuffer<u32>,
    sums: &DeviceBuffer<u64>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    cuda.zero(sums)?;
    let no_rows = cuda.alloc(0)?;
    launch_add_degrees(0, &no_rows, degrees, communities, sums, cuda)
}

fn launch_add_degrees(
    by_rows: u32,
    offsets: &DeviceBuffer<u32>,
    degrees: &DeviceBuffer<u64>,
    communities: &DeviceBuffer<u32>,
    sums: &DeviceBuffer<u64>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    let n = communities.len() as u32;
    let args: [&dyn Arg; 6] = [&n, &by_rows, offsets, degrees, communities, sums];
    cuda.launch(&MODULE, "modularity_add_degrees", Launch::new(n.div_ceil(NODES_PER_BLOCK), 256), &args)
}
