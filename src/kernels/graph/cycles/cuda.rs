//! The host side on CUDA. `cycles.cu` describes the algorithm and what its entries take.

use super::CycleCounts;
use super::numbering_cuda::{Arcs, Numbering, Side};
use crate::cuda::{Arg, DeviceBuffer, DeviceInfo, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::radix_sort;
use crate::kernels::graph::csr::{Adjacency, CsrGraph, Direction};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/cycles"));

/// The 32-bit words of `Control`.
const CONTROL_WORDS: usize = 10;
/// Blocks that the shared memory of a multiprocessor has room for, of those that count with tables.
const TABLE_BLOCKS: u32 = 7;
const TABLE_THREADS: u32 = 256;
const ARRAY_THREADS: u32 = 1024;
/// Counters of 4 bits in a word.
const UNITS_PER_WORD: u32 = 8;

/// Returns the modules that counting launches.
pub(in crate::kernels::graph) fn modules() -> [&'static Module; 2] {
    [&MODULE, &radix_sort::MODULE]
}

/// Returns whether a graph with this many arcs can be counted: those of a side are indexed by words of 32 bits.
pub(in crate::kernels::graph) const fn supports(arcs: u64) -> bool {
    arcs < (1 << 32) - 1024
}

/// Returns the bytes that a run holds on the device, for a graph of this size.
pub(in crate::kernels::graph) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    // The wedges, three lists, and the counts of each number; the counts of each node.
    let counts = Numbering::max_numbers(nodes, arcs).saturating_mul(4 * 8 + 3 * 4 + 2 * 4);
    let per_node = nodes.saturating_mul(3 * 8);
    Numbering::device_memory(nodes, arcs).saturating_add(counts).saturating_add(per_node).saturating_add(1 << 12)
}

/// Counts the cycles through each node of a graph, which follow the directions of its arcs if it has any.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn count(
    graph: &CsrGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<CycleCounts, KernelError> {
    let directed = graph.direction() == Direction::Directed;
    if graph.num_arcs() == 0 {
        let zeros = || Buffer::from(vec![0; graph.num_nodes()]);
        return Ok(CycleCounts { two: zeros(), three: zeros(), four: zeros() });
    }
    let numbering = Numbering::new(graph.successors(), !directed, cuda)?;
    let wedges = cuda.zeroed::<u64>(numbering.len())?;
    let first = numbering.side(Arcs::Forward, &wedges, cuda)?;
    let second = if directed { Some(numbering.side(Arcs::Backward, &wedges, cuda)?) } else { None };
    let [two, three, four] =
        [cuda.zeroed::<u64>(numbering.len())?, cuda.zeroed(numbering.len())?, cuda.zeroed(numbering.len())?];
    let search = Search { numbering: &numbering, wedges: &wedges, sides: [&first, second.as_ref().unwrap_or(&first)] };
    search.count(if directed { Entries::DIRECTED } else { Entries::UNDIRECTED }, &three, &four, cuda)?;
    if directed {
        search.subtract_back_and_forth(&two, &four, cuda)?;
    }
    let two = numbering.of_nodes(&two, 1, cuda)?;
    // Those of an undirected graph are counted twice.
    let three = numbering.of_nodes(&three, if directed { 1 } else { 2 }, cuda)?;
    let four = numbering.of_nodes(&four, 1, cuda)?;
    let [two, three, four] = cuda.download_all([&two, &three, &four])?;
    Ok(CycleCounts { two, three, four })
}

/// Returns how many cycles of four nodes a graph has, of which `arcs` has each edge in both directions if it is
/// `symmetric`, and in one otherwise.
///
/// # Errors
/// Those of the launch context.
pub(in crate::kernels::graph) fn count_four(
    arcs: &Adjacency,
    symmetric: bool,
    cuda: &mut LaunchContext<'_>,
) -> Result<u64, KernelError> {
    if arcs.column_indices().is_empty() {
        return Ok(0);
    }
    let numbering = Numbering::new(arcs, symmetric, cuda)?;
    let wedges = cuda.zeroed::<u64>(numbering.len())?;
    let side = numbering.side(if symmetric { Arcs::Forward } else { Arcs::Both }, &wedges, cuda)?;
    let total = cuda.zeroed::<u64>(1)?;
    let search = Search { numbering: &numbering, wedges: &wedges, sides: [&side, &side] };
    // Triangles are not counted.
    search.count(Entries::TOTAL, &total, &total, cuda)?;
    Ok(cuda.download(&total)?[0])
}

/// The entries that count: by warps, by blocks with a table, and by blocks with an array.
struct Entries {
    by_warps: &'static str,
    by_blocks: &'static str,
    by_arrays: &'static str,
    sides: u32,
}

impl Entries {
    const UNDIRECTED: Self = Self {
        by_warps: "cycles_by_warps_undirected",
        by_blocks: "cycles_by_blocks_undirected",
        by_arrays: "cycles_by_arrays_undirected",
        sides: 1,
    };
    const DIRECTED: Self = Self {
        by_warps: "cycles_by_warps_directed",
        by_blocks: "cycles_by_blocks_directed",
        by_arrays: "cycles_by_arrays_directed",
        sides: 2,
    };
    const TOTAL: Self = Self {
        by_warps: "cycles_by_warps_total",
        by_blocks: "cycles_by_blocks_total",
        by_arrays: "cycles_by_arrays_total",
        sides: 1,
    };
}

/// A graph whose cycles are counted.
struct Search<'a> {
    numbering: &'a Numbering,
    /// The wedges of each number.
    wedges: &'a DeviceBuffer<u64>,
    /// Twice the same in an undirected graph.
    sides: [&'a Side; 2],
}

impl Search<'_> {
    /// Adds the cycles of three and four nodes to the counts of each number, or those of four to a single count.
    fn count(
        &self,
        entries: Entries,
        three: &DeviceBuffer<u64>,
        four: &DeviceBuffer<u64>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let numbers = self.numbering.len();
        let num = numbers as u32;
        let lists = cuda.alloc::<u32>(3 * numbers)?;
        let control = cuda.zeroed::<u32>(CONTROL_WORDS)?;
        let by_number = Launch::elements(numbers, u32::MAX);
        cuda.launch(&MODULE, "cycles_list", by_number, &[&num, self.wedges, &lists, &control])?;

        let CancelSignal { flag, cancelled } = CancelSignal::new(cuda)?;
        let [first, second] = self.sides;
        let graph: [&dyn Arg; 6] =
            [&first.offsets, &first.columns, &first.lower, &second.offsets, &second.columns, &second.lower];
        let multiprocessors = cuda.device().multiprocessors;
        for (list, entry) in [entries.by_warps, entries.by_blocks].into_iter().enumerate() {
            let list = lists.slice(list * numbers..(list + 1) * numbers);
            let counts: [&dyn Arg; 7] = [self.wedges, &list, &control, three, four, &flag, &cancelled];
            let args: Vec<&dyn Arg> = graph.into_iter().chain(counts).collect();
            cuda.launch(&MODULE, entry, Launch::new(TABLE_BLOCKS * multiprocessors, TABLE_THREADS), &args)?;
        }
        let words = self.array_words(entries.sides, cuda.device());
        let [first_8, first_16, first_32] = self.numbering.widths;
        let list = lists.slice(2 * numbers..);
        let counts: [&dyn Arg; 11] =
            [&num, &words, &first_8, &first_16, &first_32, &list, &control, three, four, &flag, &cancelled];
        let args: Vec<&dyn Arg> = graph.into_iter().chain(counts).collect();
        let launch = Launch { shared: 4 * words * entries.sides, ..Launch::new(multiprocessors, ARRAY_THREADS) };
        cuda.launch(&MODULE, entries.by_arrays, launch, &args)
    }

    /// Returns the words of an array of counters for each side: a multiple of four, for all numbers or as many as a
    /// block of its own multiprocessor has shared memory for.
    fn array_words(&self, sides: u32, device: &DeviceInfo) -> u32 {
        let all = (self.numbering.len() as u32).div_ceil(UNITS_PER_WORD);
        all.min(array_bytes(device.compute_capability) / 4 / sides).next_multiple_of(4)
    }

    /// Counts the cycles of two nodes, and takes walks back and forth along two of them off those of four.
    fn subtract_back_and_forth(
        &self,
        two: &DeviceBuffer<u64>,
        four: &DeviceBuffer<u64>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let [Side { offsets, columns, .. }, predecessors] = self.sides;
        let (numbers, arcs) = (self.numbering.len() as u32, columns.len() as u32);
        let is_mutual = cuda.alloc::<u8>(columns.len())?;
        let mutual = cuda.zeroed::<u32>(2 * self.numbering.len())?;
        let by_arc = Launch::elements(columns.len(), u32::MAX);
        let args: [&dyn Arg; 8] =
            [&numbers, &arcs, offsets, columns, &predecessors.offsets, &predecessors.columns, &is_mutual, &mutual];
        cuda.launch(&MODULE, "cycles_mutual", by_arc, &args)?;
        let by_both = Launch::elements(columns.len().max(self.numbering.len()), u32::MAX);
        let args: [&dyn Arg; 8] = [&numbers, &arcs, offsets, columns, &is_mutual, &mutual, two, four];
        cuda.launch(&MODULE, "cycles_subtract_back_and_forth", by_both, &args)
    }
}

/// The dynamic shared memory that a block with an array takes, less a little for what is static.
const fn array_bytes(compute_capability: (u32, u32)) -> u32 {
    let kilobytes = match compute_capability {
        (9 | 10, _) => 227,
        (8, 0 | 7) => 163,
        (8 | 11 | 12, _) => 99,
        _ => 64,
    };
    (kilobytes << 10) - 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_whole_packs_of_words() {
        for capability in [(7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)] {
            for sides in [1, 2] {
                assert_eq!(array_bytes(capability) / 4 / sides % 4, 0, "{capability:?}");
            }
        }
    }
}
