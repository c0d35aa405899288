//! The rows of an adjacency on CUDA, each for a warp and long ones for several. `csr_rows.cuh` has how they are dealt.

use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::kernels::device::gemm::Matrix;
use crate::kernels::graph::csr::Adjacency;
use crate::service::{KernelError, LaunchContext};

/// `BLOCK` and `WARPS` of `load_balance.cuh`, and `CSR_PIECE` of `csr_rows.cuh`.
const THREADS: u32 = 256;
const WARPS: u32 = THREADS / 32;
const PIECE: u64 = 512;
/// The most blocks that take pieces of long rows, and that put them together.
const MAX_PIECE_BLOCKS: u64 = 2048;
const MAX_JOIN_BLOCKS: u64 = 512;

/// The most long rows of an adjacency with this many arcs, and the most pieces of them.
fn max_long_rows(arcs: u64) -> (u64, u64) {
    (arcs / PIECE + 1, 2 * arcs / PIECE + 1)
}

/// Bytes of an adjacency with the lists of its long rows.
pub(in crate::kernels::graph) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    let (long_rows, pieces) = max_long_rows(arcs);
    nodes.saturating_add(arcs).saturating_mul(4).saturating_add((long_rows + pieces) * 8 + 16)
}

/// The most pieces of the long rows of an adjacency with this many arcs.
pub(in crate::kernels::graph) fn max_pieces(arcs: u64) -> u64 {
    max_long_rows(arcs).1
}

/// An adjacency on the device.
pub(in crate::kernels::graph) struct DeviceRows {
    pub(in crate::kernels::graph) rows: u32,
    /// The blocks that take pieces of long rows.
    pub(in crate::kernels::graph) piece_blocks: u32,
    pub(in crate::kernels::graph) offsets: DeviceBuffer<u32>,
    arcs: u64,
    columns: DeviceBuffer<u32>,
    counts: DeviceBuffer<u32>,
    long_rows: DeviceBuffer<u64>,
    pieces: DeviceBuffer<u64>,
}

impl DeviceRows {
    /// Returns an adjacency on the device, whose long rows are listed by an entry of the module.
    pub(in crate::kernels::graph) fn new(
        adjacency: &Adjacency,
        module: &'static Module,
        list_long_rows: &'static str,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let (offsets, columns) = (adjacency.row_offsets(), adjacency.column_indices());
        let (rows, arcs) = ((offsets.len() - 1) as u32, columns.len() as u64);
        let (long_rows, pieces) = max_long_rows(arcs);
        let blocks = pieces.div_ceil(WARPS.into()).min(MAX_PIECE_BLOCKS) as u32;
        let this = Self {
            rows,
            piece_blocks: if arcs > PIECE { blocks } else { 0 },
            offsets: cuda.input(offsets)?,
            arcs,
            columns: cuda.input(columns)?,
            counts: cuda.zeroed(2)?,
            long_rows: cuda.alloc(long_rows as usize)?,
            pieces: cuda.alloc(pieces as usize)?,
        };
        if this.piece_blocks > 0 {
            let Self { rows, offsets, counts, long_rows, pieces, .. } = &this;
            let args: [&dyn Arg; 5] = [rows, offsets, counts, long_rows, pieces];
            cuda.launch(module, list_long_rows, Launch::new(rows.div_ceil(THREADS), THREADS), &args)?;
        }
        Ok(this)
    }

    /// The number of arcs.
    pub(in crate::kernels::graph) fn arcs(&self) -> u64 {
        self.arcs
    }

    /// The first arguments of an entry that takes a `CsrRows`.
    pub(in crate::kernels::graph) fn arguments(&self) -> [&dyn Arg; 6] {
        [&self.rows, &self.offsets, &self.columns, &self.counts, &self.long_rows, &self.pieces]
    }

    /// The shape of a launch with a warp for each row and piece, for each of some ranges of columns.
    pub(in crate::kernels::graph) fn each_row(&self, column_ranges: u32) -> Launch {
        let blocks = self.piece_blocks + self.rows.div_ceil(WARPS);
        Launch { grid: [blocks, column_ranges, 1], ..Launch::new(blocks, THREADS) }
    }

    /// The shape of a launch with a warp for each long row, for each of some ranges of columns; none where there can be no
    /// long rows.
    pub(in crate::kernels::graph) fn each_long_row(&self, column_ranges: u32) -> Option<Launch> {
        let (long_rows, _) = max_long_rows(self.arcs);
        let blocks = long_rows.div_ceil(WARPS.into()).min(MAX_JOIN_BLOCKS) as u32;
        let launch = Launch { grid: [blocks, column_ranges, 1], ..Launch::new(blocks, THREADS) };
        (self.piece_blocks > 0).then_some(launch)
    }
}

/// How many numbers of a row a lane reads at once, and how many lanes read a row: `LaneColumns` of `spmm.cuh`.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels::graph) struct LaneShape {
    pub(in crate::kernels::graph) numbers: u32,
    pub(in crate::kernels::graph) lanes: u32,
    /// Ranges of columns, each of which is read by itself.
    pub(in crate::kernels::graph) column_ranges: u32,
}

impl LaneShape {
    /// The shape for the rows of a matrix; `may_read_four` where the columns of four numbers belong together.
    pub(in crate::kernels::graph) fn of(matrix: &Matrix, may_read_four: bool) -> Self {
        let is_aligned = matrix.stride.is_multiple_of(4) && matrix.numbers.is_aligned_to(16);
        let (numbers, lanes) = if is_aligned && may_read_four {
            (4, matrix.columns.div_ceil(4).next_power_of_two().clamp(4, 32))
        } else {
            (1, 32)
        };
        Self { numbers, lanes, column_ranges: matrix.columns.div_ceil(numbers * lanes) }
    }
}
