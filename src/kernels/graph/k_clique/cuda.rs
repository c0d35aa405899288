//! The count on CUDA. `k_clique.cu` describes the algorithm and what its entries take.

use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::shared_memory;
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/k-clique"));

/// The 32-bit words of its `Control`, and where in it the items of each class and the highest degree are.
const CONTROL_WORDS: usize = 16;
const ITEMS: usize = 4;
const MAX_DEGREE: usize = 14;
/// The classes of nodes by their out-degree, and the highest degrees of the first.
const CLASSES: usize = 5;
const MEDIUM_DEGREE: u32 = 256;
const LARGE_DEGREE: u32 = 480;
/// The highest degree of the fourth, at which each lane of a warp has one word of a row.
const MAX_LARGE_DEGREE: u32 = 1024;
/// Shared memory of the variables of a block, and what the device adds.
const STATIC_SHARED: u32 = 18 << 10;
/// Warps of a block of the last class, each with a set of candidates for each of five levels.
const HUGE_LEVELS: u64 = 16 * 5;
const HUGE_BLOCKS_PER_MULTIPROCESSOR: u32 = 2;
/// Bytes for the matrices of the last class, unless one alone takes more.
const MATRIX_BYTES: u64 = 1 << 30;

/// The words of a matrix of this many rows.
const fn matrix_words(degree: u64) -> u64 {
    degree.saturating_mul(degree.div_ceil(32))
}

/// Returns the bytes that a run holds on the device, with a graph of this size, whose oriented form has `graph_bytes`.
pub(super) fn device_memory(nodes: u64, edges: u64, graph_bytes: u64) -> u64 {
    // A node has at most this many successors.
    let degree = edges.saturating_mul(2).isqrt();
    let matrix = 4 * (matrix_words(degree) + HUGE_LEVELS * degree.div_ceil(32));
    let matrices = if degree > LARGE_DEGREE.into() { MATRIX_BYTES.max(matrix) } else { 0 };
    let items = nodes.saturating_add(edges / 16).saturating_mul(8);
    graph_bytes.saturating_add(items).saturating_add(matrices)
}

/// Returns how many branches of a node a block takes: fewer where they take far longer than making the matrix.
fn branches(k: u32) -> u32 {
    if k <= 4 { 1024 } else { 64 }
}

/// Returns the highest degree whose matrix fits into this much shared memory.
fn large_limit(shared_memory: u32) -> u32 {
    let fits = |&degree: &u32| 4 * matrix_words(degree.into()) <= u64::from(shared_memory - STATIC_SHARED);
    (LARGE_DEGREE..=MAX_LARGE_DEGREE).take_while(fits).last().unwrap_or(LARGE_DEGREE)
}

/// Returns the number of cliques of `k` nodes, 3 or more.
///
/// # Errors
/// Those of the launch context.
pub(super) fn count(graph: &OrientedGraph, k: u32, cuda: &mut LaunchContext<'_>) -> Result<u64, KernelError> {
    let nodes = graph.num_nodes() as u32;
    let offsets = cuda.input(graph.arcs().row_offsets())?;
    let columns = cuda.input(graph.arcs().column_indices())?;
    let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
    let branches = branches(k);
    let large_limit = large_limit(shared_memory(cuda.device().compute_capability));
    let by_node = Launch::elements(graph.num_nodes(), u32::MAX);
    cuda.launch(&MODULE, "k_clique_plan", by_node, &[&nodes, &offsets, &k, &branches, &large_limit, &control])?;
    let planned = cuda.download(&control)?;
    let counts: [u32; CLASSES] = std::array::from_fn(|class| planned[ITEMS + class]);
    let mut total = 0;
    let starts = counts.map(|count| {
        total += count;
        total - count
    });
    let items = cuda.alloc::<u64>(total as usize)?;
    let next = cuda.upload(&starts)?;
    cuda.launch(&MODULE, "k_clique_list", by_node, &[&nodes, &offsets, &k, &branches, &large_limit, &next, &items])?;

    let of_class = |class: usize| items.slice(starts[class] as usize..(starts[class] + counts[class]) as usize);
    let search = Search { offsets, columns, k, branches, control };
    // The largest first, so that small ones fill the end.
    let max_degree = planned[MAX_DEGREE];
    search.huge(&of_class(4), max_degree, cuda)?;
    for (class, degree, blocks) in [(3, max_degree.min(large_limit), 1), (2, LARGE_DEGREE, 4)] {
        search.large(&of_class(class), class as u32, degree, blocks, cuda)?;
    }
    search.medium(&of_class(1), cuda)?;
    search.small(&of_class(0), cuda)?;
    let words = cuda.download(&control)?;
    Ok(u64::from(words[0]) | u64::from(words[1]) << 32)
}

/// What the launches of all classes take.
struct Search {
    offsets: DeviceBuffer<u32>,
    columns: DeviceBuffer<u32>,
    k: u32,
    branches: u32,
    control: DeviceBuffer<u32>,
}

impl Search {
    fn small(&self, items: &DeviceBuffer<u64>, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { offsets, columns, k, control, .. } = self;
        let (count, cancel) = (items.len() as u32, cuda.cancel_flag());
        let blocks = count.div_ceil(8).min(4 * cuda.device().multiprocessors);
        let args: [&dyn Arg; 7] = [offsets, columns, k, &count, items, control, &cancel];
        cuda.launch(&MODULE, "k_clique_small", Launch::new(blocks, 256), &args)
    }

    fn medium(&self, items: &DeviceBuffer<u64>, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { offsets, columns, k, branches, control } = self;
        let (count, cancel) = (items.len() as u32, cuda.cancel_flag());
        let shared = 4 * matrix_words(MEDIUM_DEGREE.into()) as u32;
        let launch = Launch { shared, ..Launch::new(count.min(6 * cuda.device().multiprocessors), 256) };
        let args: [&dyn Arg; 8] = [offsets, columns, k, branches, &count, items, control, &cancel];
        cuda.launch(&MODULE, "k_clique_medium", launch, &args)
    }

    /// Searches classes 2 and 3, with nodes of up to `degree` successors.
    fn large(
        &self,
        items: &DeviceBuffer<u64>,
        class: u32,
        degree: u32,
        blocks: u32,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { offsets, columns, k, branches, control } = self;
        let (count, cancel) = (items.len() as u32, cuda.cancel_flag());
        let shared = 4 * matrix_words(degree.into()) as u32;
        let launch = Launch { shared, ..Launch::new(count.min(blocks * cuda.device().multiprocessors), 512) };
        let args: [&dyn Arg; 9] = [offsets, columns, k, branches, &count, items, &class, control, &cancel];
        cuda.launch(&MODULE, "k_clique_large", launch, &args)
    }

    fn huge(
        &self,
        items: &DeviceBuffer<u64>,
        max_degree: u32,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        if items.is_empty() {
            return Ok(());
        }
        let Self { offsets, columns, k, branches, control } = self;
        let (count, cancel) = (items.len() as u32, cuda.cancel_flag());
        let degree = u64::from(max_degree);
        let words = matrix_words(degree) + HUGE_LEVELS * degree.div_ceil(32);
        let most = HUGE_BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors;
        let blocks = (MATRIX_BYTES / (4 * words)).clamp(1, most.min(count).into());
        let scratch = cuda.alloc::<u32>((blocks * words) as usize)?;
        let args: [&dyn Arg; 10] = [offsets, columns, k, branches, &count, items, &words, &scratch, control, &cancel];
        cuda.launch(&MODULE, "k_clique_huge", Launch::new(blocks as u32, 512), &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_large_nodes_fit_into_shared_memory() {
        for (capability, expected) in [((7, 5), 608), ((8, 0), 1024), ((8, 6), 800), ((9, 0), 1024)] {
            let bytes = shared_memory(capability);
            let limit = large_limit(bytes);
            assert!(4 * matrix_words(limit.into()) + u64::from(STATIC_SHARED) <= u64::from(bytes));
            assert_eq!(limit, expected, "{capability:?}");
        }
        // What a block has without asking for more.
        assert!(4 * matrix_words(LARGE_DEGREE.into()) + u64::from(STATIC_SHARED) <= 48 << 10);
    }
}
