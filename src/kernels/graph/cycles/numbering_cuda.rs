//! New numbers for the nodes of a graph, and its rows by number, on the device.

use super::cuda::MODULE;
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::device::radix_sort;
use crate::kernels::graph::csr::Adjacency;
use crate::kernels::ordered_bits::SortOrder;
use crate::service::{KernelError, LaunchContext};

/// Which way an arc leads in the rows of a [`Side`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Arcs {
    /// As in the graph.
    Forward,
    /// The other way.
    Backward,
    /// Both ways.
    Both,
}

/// The numbers of the nodes, which ascend with their degrees: each is the position of the node's counter.
pub(super) struct Numbering {
    nodes: u32,
    arcs: u32,
    offsets: DeviceBuffer<u32>,
    columns: DeviceBuffer<u32>,
    /// The number of each node; `u32::MAX` for a node without neighbours.
    numbers: DeviceBuffer<u32>,
    /// How many numbers there are, those without a node included.
    len: u32,
    /// The first numbers with counters of 8, 16 and 32 bits.
    pub(super) widths: [u32; 3],
}

/// The rows of the numbers, ascending.
pub(super) struct Side {
    pub(super) offsets: DeviceBuffer<u32>,
    pub(super) columns: DeviceBuffer<u32>,
    /// For an arc to a lower number, how many numbers in the row of that are lower than the one where the arc starts.
    pub(super) lower: DeviceBuffer<u32>,
}

impl Numbering {
    /// Numbers the nodes of a graph with at least one arc; `symmetric` if each arc's opposite is one, too.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn new(graph: &Adjacency, symmetric: bool, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let offsets = cuda.input(graph.row_offsets())?;
        let columns = cuda.input(graph.column_indices())?;
        let num_nodes = graph.row_offsets().len() - 1;
        let (nodes, arcs) = (num_nodes as u32, columns.len() as u32);
        let degrees = cuda.zeroed::<u32>(num_nodes)?;
        let by_both = Launch::elements(columns.len().max(num_nodes), u32::MAX);
        let args: [&dyn Arg; 6] = [&nodes, &arcs, &u32::from(symmetric), &offsets, &columns, &degrees];
        cuda.launch(&MODULE, "cycles_degrees", by_both, &args)?;
        let (degrees, order) = radix_sort::sort_with_indices(&degrees, SortOrder::Ascending, cuda)?;
        let first_ranks = cuda.alloc::<u32>(4)?;
        cuda.launch(&MODULE, "cycles_widths", Launch::new(1, 256), &[&nodes, &degrees, &first_ranks])?;
        let first_ranks = cuda.download(&first_ranks)?;
        let (widths, len) = layout([first_ranks[0], first_ranks[1], first_ranks[2], first_ranks[3]], nodes);

        let numbers = cuda.alloc::<u32>(num_nodes)?;
        let args: [&dyn Arg; 10] = [
            &nodes,
            &first_ranks[0],
            &first_ranks[1],
            &first_ranks[2],
            &first_ranks[3],
            &widths[0],
            &widths[1],
            &widths[2],
            &order,
            &numbers,
        ];
        cuda.launch(&MODULE, "cycles_number", Launch::elements(num_nodes, u32::MAX), &args)?;
        Ok(Self { nodes, arcs, offsets, columns, numbers, len, widths })
    }

    /// Returns the number of numbers.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns the most numbers for a graph of this size.
    pub(super) const fn max_numbers(nodes: u64, arcs: u64) -> u64 {
        // A node of degree 16 takes 1 number more, one of degree 256 takes 3, and one of degree 65536 takes 7.
        nodes.saturating_add(arcs / 8).saturating_add(32)
    }

    /// Returns the device memory of the numbers and the sides, with what it takes to make them, for a graph of this
    /// size.
    pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
        let arcs_of_sides = arcs.saturating_mul(2);
        let keys =
            arcs_of_sides.saturating_mul(8).saturating_add(radix_sort::device_memory::<u64>(arcs_of_sides, false));
        let order = nodes.saturating_mul(8).saturating_add(radix_sort::device_memory::<u32>(nodes, true));
        // The graph, and for each side the columns, their lower ones, and the offsets.
        let graphs = nodes.saturating_add(arcs).saturating_add(arcs_of_sides.saturating_mul(2)).saturating_mul(4);
        let offsets = Self::max_numbers(nodes, arcs).saturating_mul(8);
        [keys, order, graphs, offsets].into_iter().fold(0, u64::saturating_add)
    }

    /// Makes the rows of one side, and adds the wedges along their arcs to those of each number.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn side(
        &self,
        arcs: Arcs,
        wedges: &DeviceBuffer<u64>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Side, KernelError> {
        let [forward, backward] = match arcs {
            Arcs::Forward => [1, 0],
            Arcs::Backward => [0, 1],
            Arcs::Both => [1, 1],
        };
        let num_arcs = self.arcs * (forward + backward);
        let bits = u32::BITS - self.len.leading_zeros();
        let keys = cuda.alloc::<u64>(num_arcs as usize)?;
        let args: [&dyn Arg; 9] =
            [&self.nodes, &self.arcs, &bits, &forward, &backward, &self.offsets, &self.columns, &self.numbers, &keys];
        cuda.launch(&MODULE, "cycles_keys", Launch::elements(self.columns.len(), u32::MAX), &args)?;
        let keys = radix_sort::sort(&keys, SortOrder::Ascending, cuda)?;
        let offsets = cuda.alloc::<u32>(self.len() + 1)?;
        let columns = cuda.alloc::<u32>(keys.len())?;
        let by_both = Launch::elements(keys.len().max(self.len() + 1), u32::MAX);
        cuda.launch(&MODULE, "cycles_rows", by_both, &[&self.len, &num_arcs, &bits, &keys, &offsets, &columns])?;
        let lower = cuda.alloc::<u32>(keys.len())?;
        let by_arc = Launch::elements(keys.len(), u32::MAX);
        let args: [&dyn Arg; 6] = [&self.len, &num_arcs, &offsets, &columns, &lower, wedges];
        cuda.launch(&MODULE, "cycles_wedges", by_arc, &args)?;
        Ok(Side { offsets, columns, lower })
    }

    /// Returns the counts of the nodes from those of the numbers, divided.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn of_nodes(
        &self,
        counts: &DeviceBuffer<u64>,
        divisor: u32,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<DeviceBuffer<u64>, KernelError> {
        let of_nodes = cuda.alloc::<u64>(self.nodes as usize)?;
        let launch = Launch::elements(self.nodes as usize, u32::MAX);
        cuda.launch(&MODULE, "cycles_gather", launch, &[&self.nodes, &self.numbers, &divisor, counts, &of_nodes])?;
        Ok(of_nodes)
    }
}

/// Returns the first numbers with counters of 8, 16 and 32 bits, and how many numbers there are. The first ranks are
/// those of nodes of degree 1, 16, 256 and 65536.
fn layout(first_ranks: [u32; 4], nodes: u32) -> ([u32; 3], u32) {
    let [first_1, first_16, first_256, first_65536] = first_ranks;
    // No word has counters of two widths.
    let first_8 = (first_16 - first_1).next_multiple_of(8);
    let first_16_bits = (first_8 + 2 * (first_256 - first_16)).next_multiple_of(8);
    let first_32 = (first_16_bits + 4 * (first_65536 - first_256)).next_multiple_of(8);
    ([first_8, first_16_bits, first_32], first_32 + 8 * (nodes - first_65536))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_few_and_widths_begin_at_words() {
        assert_eq!(layout([0, 5, 5, 5], 5), ([8, 8, 8], 8));
        assert_eq!(layout([2, 5, 7, 8], 9), ([8, 16, 24], 32));
        // A hub with 65536 neighbours.
        let (nodes, arcs) = (65_537, 2 * 65_536);
        let (_, len) = layout([0, 65_536, 65_536, 65_536], 65_537);
        assert!(u64::from(len) <= Numbering::max_numbers(nodes, arcs), "{len}");
    }
}
