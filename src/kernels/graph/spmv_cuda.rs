//! The host side of sparse matrix-vector products on CUDA; `spmv.cuh` describes the algorithm.

use super::csr::Adjacency;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::service::{KernelError, LaunchContext};

/// `SPMV_THREADS`, `SPMV_CHUNK` and `SPMV_BLOCK_ROWS` of `spmv.cuh`.
const THREADS: u32 = 256;
const CHUNK: u32 = 256;
const BLOCK_ROWS: u32 = 16 * THREADS;
/// Blocks of a launch over all nodes. Sums over nodes depend on it.
const NODE_BLOCKS: u32 = 1024;

/// Bytes of the index of a matrix, and of the sums and carries of this many vectors.
pub(super) fn device_memory(nodes: u64, arcs: u64, width: u64) -> u64 {
    let chunks = arcs / u64::from(CHUNK) + 1;
    let index = nodes.saturating_mul(4).saturating_add(chunks.saturating_mul(u64::from(CHUNK) / 8 + 4));
    let products = nodes.saturating_add(chunks).saturating_mul(width).saturating_mul(8);
    let sums = u64::from(NODE_BLOCKS).saturating_mul(width).saturating_mul(16);
    index.saturating_add(products).saturating_add(sums)
}

/// The adjacency whose rows are added up, with the index that `multiply_chunk` needs.
pub(super) struct Matrix {
    pub(super) nodes: u32,
    pub(super) chunks: u32,
    pub(super) offsets: DeviceBuffer<u32>,
    pub(super) columns: DeviceBuffer<u32>,
    /// Of each row, and the number of rows with arcs.
    pub(super) ranks: DeviceBuffer<u32>,
    /// A bit for each arc.
    pub(super) flags: DeviceBuffer<u32>,
    pub(super) chunk_ranks: DeviceBuffer<u32>,
}

impl Matrix {
    /// Returns the arrays of an adjacency on the device, and makes the index with the entries of a module that includes
    /// `spmv.cuh`.
    pub(super) fn new(
        adjacency: &Adjacency,
        module: &'static Module,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let (offsets, columns) = (adjacency.row_offsets(), adjacency.column_indices());
        let nodes = (offsets.len() - 1) as u32;
        // Fewer than 2^32 arcs, one of which more than there are has a flag.
        let chunks = columns.len() as u32 / CHUNK + 1;
        let row_blocks = (nodes + 1).div_ceil(BLOCK_ROWS);
        let (offsets, columns) = (cuda.input(offsets)?, cuda.input(columns)?);
        let counts = cuda.alloc::<u32>(row_blocks as usize)?;
        let ranks = cuda.alloc(nodes as usize + 1)?;
        let flags = cuda.zeroed(chunks as usize * (CHUNK / 32) as usize)?;
        let chunk_ranks = cuda.alloc(chunks as usize)?;
        let launch = |blocks| Launch::new(blocks, THREADS);
        cuda.launch(module, "spmv_count_rows", launch(row_blocks), &[&nodes, &offsets, &counts])?;
        cuda.launch(module, "spmv_scan_counts", launch(1), &[&row_blocks, &counts])?;
        let rows: [&dyn Arg; 5] = [&nodes, &offsets, &counts, &ranks, &flags];
        cuda.launch(module, "spmv_rank_rows", launch(row_blocks), &rows)?;
        let rank_chunks: [&dyn Arg; 5] = [&nodes, &chunks, &offsets, &ranks, &chunk_ranks];
        cuda.launch(module, "spmv_rank_chunks", launch(chunks.div_ceil(THREADS)), &rank_chunks)?;
        Ok(Self { nodes, chunks, offsets, columns, ranks, flags, chunk_ranks })
    }

    /// Launches `spmv_multiply`: completes the products with all vectors that are not done.
    pub(super) fn multiply(
        &self,
        module: &'static Module,
        width: u32,
        states: &DeviceBuffer<u64>,
        from: &DeviceBuffer<f64>,
        products: &Products,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { nodes, chunks, offsets, columns, ranks, flags, chunk_ranks } = self;
        let Products { sums, carries, .. } = products;
        let args: [&dyn Arg; 12] =
            [nodes, chunks, &width, offsets, columns, ranks, flags, chunk_ranks, states, from, sums, carries];
        // A warp for each chunk.
        cuda.launch(module, "spmv_multiply", Launch::new(chunks.div_ceil(THREADS / 32), THREADS), &args)
    }

    /// The first arguments of an entry that calls `update_nodes`.
    pub(super) fn update_args<'a>(&'a self, products: &'a Products, width: &'a u32) -> Vec<&'a dyn Arg> {
        vec![&self.nodes, &self.chunks, width, &self.offsets, &self.ranks, &products.sums, &products.carries]
    }

    /// The shape of a launch over all nodes.
    pub(super) fn over_nodes(&self) -> Launch {
        Launch::elements(self.nodes as usize, NODE_BLOCKS)
    }
}

/// What a product leaves, and the sums over the nodes that are updated from it.
pub(super) struct Products {
    pub(super) sums: DeviceBuffer<f64>,
    pub(super) carries: DeviceBuffer<f64>,
    /// Pairs of numbers.
    pub(super) block_sums: DeviceBuffer<f64>,
    pub(super) blocks_done: DeviceBuffer<u32>,
}

impl Products {
    /// Allocates the products with this many vectors.
    pub(super) fn new(matrix: &Matrix, width: usize, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        Ok(Self {
            sums: cuda.alloc(matrix.nodes as usize * width)?,
            carries: cuda.alloc(matrix.chunks as usize * width)?,
            block_sums: cuda.alloc(2 * NODE_BLOCKS as usize * width)?,
            blocks_done: cuda.zeroed(1)?,
        })
    }
}
