//! The host side on CUDA. `motif_detection.cu` describes the algorithm and what its entries take.

use super::triangle_census::{COMBINATIONS, TriangleCensus};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/motif-detection"));

/// Blocks of a multiprocessor, which its registers are allotted for.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;
/// The most multiprocessors that the estimate of the memory counts with.
const MAX_MULTIPROCESSORS: u64 = 256;
/// The 32-bit words of `Control`, and where it has the most successors of a node and the cliques.
const CONTROL_WORDS: usize = 8;
const MAX_ROW: usize = 4;
const CLIQUES: usize = 6;
/// The most words of a matrix in shared memory.
const SHARED_WORDS: u64 = 3_072;
/// Words of the matrices in global memory, unless one of them takes more.
const MATRIX_WORDS: u64 = 64 << 20;

/// What the device counts.
pub(super) struct Census {
    pub(super) triangles: TriangleCensus,
    /// Cliques of four nodes.
    pub(super) cliques: u64,
    /// To how many nodes each node of a directed graph has arcs in both directions.
    pub(super) mutual: Option<Buffer<u32>>,
}

/// Returns the bytes that a run holds on the device, for a graph of this size.
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    // The square of a node's successors is at most twice the arcs.
    let matrix = matrix_words(arcs.saturating_mul(2).isqrt() + 1);
    let blocks = u64::from(BLOCKS_PER_MULTIPROCESSOR) * MAX_MULTIPROCESSORS;
    let matrices = matrix.saturating_mul(blocks).min(matrix.max(MATRIX_WORDS)).saturating_mul(4);
    // The oriented graph, its triangles and dyads, and the directed graph; lists and mutual degrees.
    matrices.saturating_add(arcs.saturating_mul(4 + 4 + 1 + 4)).saturating_add(nodes.saturating_mul(16))
}

/// Counts triangles and cliques.
///
/// # Errors
/// Those of the launch context.
pub(super) fn census(
    graph: &CsrGraph,
    oriented: &OrientedGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<Census, KernelError> {
    let num_nodes = oriented.num_nodes();
    let nodes = num_nodes as u32;
    let offsets = cuda.input(oriented.arcs().row_offsets())?;
    let columns = cuda.input(oriented.arcs().column_indices())?;
    let list = cuda.alloc::<u32>(num_nodes)?;
    let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
    let by_node = Launch::elements(num_nodes, u32::MAX);
    cuda.launch(&MODULE, "motif_list", by_node, &[&nodes, &offsets, &list, &control])?;
    let matrix_words = matrix_words(cuda.download(&control)?[MAX_ROW].into());

    let blocks = nodes.min(BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
    let max_matrices = MATRIX_WORDS.checked_div(matrix_words).map_or(blocks, |matrices| matrices.max(1) as u32);
    let blocks = blocks.min(max_matrices);
    let matrices = cuda.alloc::<u32>((matrix_words * u64::from(blocks)) as usize)?;
    let of_arcs = cuda.zeroed::<u32>(columns.len())?;
    let signal = CancelSignal::new(cuda)?;
    let launch = Launch::new(blocks, 256);
    let (of_dyads, mutual) = if graph.direction() == Direction::Directed {
        let of_dyads = cuda.zeroed::<u64>(COMBINATIONS)?;
        let Dyads { dyads, mutual } = Dyads::new(graph, [&offsets, &columns], &signal, cuda)?;
        let CancelSignal { flag, cancelled } = signal;
        let args: [&dyn Arg; 12] = [
            &nodes,
            &offsets,
            &columns,
            &dyads,
            &list,
            &matrix_words,
            &matrices,
            &control,
            &of_arcs,
            &of_dyads,
            &flag,
            &cancelled,
        ];
        cuda.launch(&MODULE, "motif_count_directed", launch, &args)?;
        let counts = cuda.download(&of_dyads)?;
        (std::array::from_fn(|index| counts[index]), Some(cuda.download(&mutual)?))
    } else {
        let CancelSignal { flag, cancelled } = signal;
        let args: [&dyn Arg; 10] =
            [&nodes, &offsets, &columns, &list, &matrix_words, &matrices, &control, &of_arcs, &flag, &cancelled];
        cuda.launch(&MODULE, "motif_count_undirected", launch, &args)?;
        ([0; COMBINATIONS], None)
    };
    let [of_arcs, control] = cuda.download_all([&of_arcs, &control])?;
    let cliques = u64::from(control[CLIQUES]) | u64::from(control[CLIQUES + 1]) << 32;
    Ok(Census { triangles: TriangleCensus { of_arcs, of_dyads }, cliques, mutual })
}

/// Returns the words of a matrix of bits in global memory, for nodes of up to this many successors.
const fn matrix_words(max_row: u64) -> u64 {
    let words = max_row.saturating_mul(max_row.div_ceil(32));
    if words <= SHARED_WORDS { 0 } else { words }
}

/// The directions of the arcs of a directed graph.
struct Dyads {
    /// For each arc of the oriented graph.
    dyads: DeviceBuffer<u8>,
    /// To how many nodes each node has arcs in both directions.
    mutual: DeviceBuffer<u32>,
}

impl Dyads {
    fn new(
        graph: &CsrGraph,
        [offsets, columns]: [&DeviceBuffer<u32>; 2],
        &CancelSignal { flag, cancelled }: &CancelSignal,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let nodes = graph.num_nodes() as u32;
        let successor_offsets = cuda.input(graph.successors().row_offsets())?;
        let successors = cuda.input(graph.successors().column_indices())?;
        let dyads = cuda.alloc::<u8>(columns.len())?;
        let mutual = cuda.zeroed::<u32>(graph.num_nodes())?;
        let args: [&dyn Arg; 9] =
            [&nodes, offsets, columns, &successor_offsets, &successors, &dyads, &mutual, &flag, &cancelled];
        // A warp for each row.
        cuda.launch(&MODULE, "motif_dyads", Launch::new(nodes.div_ceil(8), 256), &args)?;
        Ok(Self { dyads, mutual })
    }
}
