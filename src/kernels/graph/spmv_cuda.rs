//! The host side of sparse matrix-vector products on CUDA; `spmv.cuh` describes the algorithm.

use super::csr::CsrGraph;
use super::spmv_segments_cuda::{self, SegmentedMatrix, UPDATE_BLOCKS};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::radix_sort::{self, sort_with_indices};
use crate::kernels::device::shared_memory;
use crate::kernels::ordered_bits::SortOrder;
use crate::service::{KernelError, LaunchContext};

/// `SPMV_THREADS`, `SPMV_MULTIPLY_THREADS`, `SPMV_CHUNK` and `SPMV_BLOCK_ROWS` of `spmv.cuh`.
const THREADS: u32 = 256;
const MULTIPLY_THREADS: u32 = 1024;
const CHUNK: u32 = 256;
const BLOCK_ROWS: u32 = 16 * THREADS;
/// Blocks of 256 threads that a multiprocessor holds at a time. Sums over nodes depend on it.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 4;
/// The most multiprocessors that memory is counted for.
const MAX_MULTIPROCESSORS: u64 = 256;
/// Chunks of a launch that multiplies: some milliseconds.
const CHUNKS_PER_LAUNCH: u32 = 1 << 21;

/// Nodes that are given the first places: those in shared memory, and as many more as the caches hold of them.
const TOP_PLACES: u32 = 1 << 16;
/// Arcs and iterations from which finding these nodes and replacing the columns takes less time than it saves.
const MIN_PLACED_ARCS: u64 = 1 << 21;
const MIN_PLACED_ITERATIONS: u32 = 8;
/// Shared memory that is left to the L1 cache.
const L1_BYTES: u32 = 32 << 10;

/// Bytes of a matrix beyond the arrays of the graph, and of the products and contributions of this many vectors.
pub(super) fn device_memory(nodes: u64, arcs: u64, width: u64) -> u64 {
    let chunks = arcs / u64::from(CHUNK) + 1;
    // Ranks and places of nodes; bits, ranks and what each lane begins of chunks.
    let index = nodes.saturating_mul(8).saturating_add(chunks.saturating_mul(u64::from(CHUNK) / 8 + 4 + 64));
    let placed = if arcs < MIN_PLACED_ARCS {
        0
    } else {
        let sort = radix_sort::device_memory::<u32>(nodes, true);
        arcs.saturating_add(nodes).saturating_mul(4).saturating_add(sort)
    };
    let products = nodes.saturating_add(chunks).saturating_mul(width).saturating_mul(8);
    let slots = nodes.saturating_add(u64::from(TOP_PLACES)).max(SegmentedMatrix::slots(0).into());
    let contributions = slots.saturating_mul(width).saturating_mul(16);
    let blocks = MAX_MULTIPROCESSORS * u64::from(BLOCKS_PER_MULTIPROCESSOR.max(UPDATE_BLOCKS));
    let sums = (blocks * 16).saturating_mul(width);
    let segments = spmv_segments_cuda::device_memory(nodes, arcs, width);
    [placed, products, contributions, sums, segments].into_iter().fold(index, u64::saturating_add)
}

/// The adjacency whose rows are added up, and the places of contributions.
pub(super) struct Matrix {
    module: &'static Module,
    pub(super) nodes: u32,
    /// The place of each node among the contributions.
    pub(super) places: DeviceBuffer<u32>,
    /// The number of places, one of which at least is of no node.
    pub(super) slots: u32,
    multiprocessors: u32,
    cancel: CancelSignal,
    form: Form,
}

/// How products are made.
enum Form {
    Chunks(ChunkedMatrix),
    Segments(SegmentedMatrix),
}

impl Matrix {
    /// Returns the matrix of a graph, whose predecessors are [made](CsrGraph::make_predecessors), for up to
    /// `max_iterations` products by the entries of a module that includes `spmv_segments.cuh`. The arcs of a graph that is
    /// stored are arranged by segments, where that makes products faster.
    pub(super) fn new(
        graph: &CsrGraph,
        is_stored: bool,
        max_iterations: u32,
        module: &'static Module,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let segmented = if is_stored && SegmentedMatrix::fits(cuda) { graph.segmented(cuda.context())? } else { None };
        let nodes = graph.num_nodes() as u32;
        let (form, places, slots) = match segmented {
            Some(rows) => {
                let matrix = SegmentedMatrix::new(rows, cuda)?;
                let places = matrix.places;
                (Form::Segments(matrix), places, SegmentedMatrix::slots(nodes))
            }
            None => {
                let (matrix, places, slots) = ChunkedMatrix::new(graph, max_iterations, module, cuda)?;
                (Form::Chunks(matrix), places, slots)
            }
        };
        let (multiprocessors, cancel) = (cuda.device().multiprocessors, CancelSignal::new(cuda)?);
        Ok(Self { module, nodes, places, slots, multiprocessors, cancel, form })
    }

    /// Launches products with `width` vectors: completes those that are not done.
    pub(super) fn multiply(
        &self,
        width: u32,
        states: &DeviceBuffer<u64>,
        from: &DeviceBuffer<f64>,
        products: &Products,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let at_a_time = if self.in_pairs() { 2 } else { 1 };
        // There may be room for more vectors than these.
        let [sums, carries] = self.products_of_vector();
        for first in (0..width).step_by(at_a_time) {
            let vectors = first..width.min(first + at_a_time as u32);
            let of_vectors = |elements_per_vector: usize| {
                let [start, end] = [vectors.start, vectors.end].map(|vector| vector as usize);
                start * elements_per_vector..end * elements_per_vector
            };
            let part = VectorsOfLaunch {
                count: vectors.end - vectors.start,
                states: states.slice(of_vectors(states.len() / width as usize)),
                from: from.slice(of_vectors(self.slots as usize)),
                sums: products.sums.slice(of_vectors(sums)),
                carries: products.carries.slice(of_vectors(carries)),
            };
            match &self.form {
                Form::Chunks(matrix) => matrix.multiply(self, &part, cuda)?,
                Form::Segments(matrix) => matrix.multiply(self.module, &part, &self.cancel, cuda)?,
            }
        }
        Ok(())
    }

    /// Returns how many sums and carries the product with one vector has.
    fn products_of_vector(&self) -> [usize; 2] {
        match &self.form {
            Form::Chunks(chunked) => [self.nodes as usize, chunked.chunks as usize],
            Form::Segments(segmented) => [segmented.sums as usize, 0],
        }
    }

    /// Whether this is the form of large stored graphs.
    pub(super) fn is_in_segments(&self) -> bool {
        matches!(self.form, Form::Segments(_))
    }

    /// Whether the contributions to two vectors are side by side.
    pub(super) fn in_pairs(&self) -> bool {
        matches!(self.form, Form::Chunks(_))
    }

    /// Returns the entry that updates nodes from the sums that this form of the matrix has.
    pub(super) fn update_entry(&self, [chunks, segments]: [&'static str; 2]) -> &'static str {
        match self.form {
            Form::Chunks(_) => chunks,
            Form::Segments(_) => segments,
        }
    }

    /// The first arguments of such an entry.
    pub(super) fn update_args<'a>(&'a self, products: &'a Products, width: &'a u32) -> Vec<&'a dyn Arg> {
        let Self { nodes, places, slots, .. } = self;
        let sums = &products.sums;
        match &self.form {
            Form::Chunks(ChunkedMatrix { chunks, offsets, ranks, .. }) => {
                vec![nodes, chunks, slots, width, offsets, ranks, places, sums, &products.carries]
            }
            Form::Segments(SegmentedMatrix { sums: sums_of_vector, piece_offsets, positions, .. }) => {
                vec![nodes, sums_of_vector, slots, width, piece_offsets, positions, places, sums]
            }
        }
    }

    /// The shape of a launch over all nodes.
    pub(super) fn over_nodes(&self) -> Launch {
        Launch::elements(self.nodes as usize, self.node_blocks())
    }

    /// The most blocks of such a launch.
    fn node_blocks(&self) -> u32 {
        match self.form {
            Form::Chunks(_) => node_blocks(self.multiprocessors),
            Form::Segments(_) => self.multiprocessors * UPDATE_BLOCKS,
        }
    }

    /// Allocates the contributions to `width` vectors.
    pub(super) fn contributions(
        &self,
        width: usize,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<[DeviceBuffer<f64>; 2], KernelError> {
        let len = self.slots as usize * width;
        Ok([cuda.alloc(len)?, cuda.alloc(len)?])
    }
}

/// The most blocks of a launch over all nodes: as many as the device holds at a time.
fn node_blocks(multiprocessors: u32) -> u32 {
    multiprocessors * BLOCKS_PER_MULTIPROCESSOR
}

/// The arcs in chunks, with the index that products need.
struct ChunkedMatrix {
    arcs: u32,
    chunks: u32,
    offsets: DeviceBuffer<u32>,
    /// The places of the nodes that arcs come from.
    columns: DeviceBuffer<u32>,
    /// Of each row, and the number of rows with arcs.
    ranks: DeviceBuffer<u32>,
    /// 32 numbers of 16 bits for each chunk.
    lane_begins: DeviceBuffer<u32>,
    chunk_ranks: DeviceBuffer<u32>,
    shared_memory: u32,
}

impl ChunkedMatrix {
    /// Returns the matrix, the places of the nodes and the number of places.
    fn new(
        graph: &CsrGraph,
        max_iterations: u32,
        module: &'static Module,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(Self, DeviceBuffer<u32>, u32), KernelError> {
        let (offsets, columns) = (graph.predecessors().row_offsets(), graph.predecessors().column_indices());
        let (nodes, arcs) = (graph.num_nodes() as u32, columns.len() as u32);
        // Fewer than 2^32 arcs, one of which more than there are has a bit.
        let chunks = arcs / CHUNK + 1;
        let row_blocks = (nodes + 1).div_ceil(BLOCK_ROWS);
        let (offsets, columns) = (cuda.input(offsets)?, cuda.input(columns)?);
        let counts = cuda.alloc::<u32>(row_blocks as usize)?;
        let ranks = cuda.alloc(nodes as usize + 1)?;
        let flags = cuda.zeroed::<u32>(chunks as usize * (CHUNK / 32) as usize)?;
        let (chunk_ranks, lane_begins) = (cuda.alloc(chunks as usize)?, cuda.alloc(chunks as usize * 16)?);
        let launch = |blocks| Launch::new(blocks, THREADS);
        cuda.launch(module, "spmv_count_rows", launch(row_blocks), &[&nodes, &offsets, &counts])?;
        cuda.launch(module, "spmv_scan_counts", launch(1), &[&row_blocks, &counts])?;
        let rows: [&dyn Arg; 5] = [&nodes, &offsets, &counts, &ranks, &flags];
        cuda.launch(module, "spmv_rank_rows", launch(row_blocks), &rows)?;
        let rank_chunks: [&dyn Arg; 5] = [&nodes, &chunks, &offsets, &ranks, &chunk_ranks];
        cuda.launch(module, "spmv_rank_chunks", launch(chunks.div_ceil(THREADS)), &rank_chunks)?;
        let begin_lanes: [&dyn Arg; 3] = [&chunks, &flags, &lane_begins];
        cuda.launch(module, "spmv_begin_lanes", launch(chunks.div_ceil(THREADS / 32)), &begin_lanes)?;

        let shared_memory = shared_memory(cuda.device().compute_capability) - L1_BYTES;
        let matrix = Self { arcs, chunks, offsets, columns, ranks, lane_begins, chunk_ranks, shared_memory };
        matrix.place(graph, max_iterations, module, cuda)
    }

    /// Gives the nodes with the most successors the first places, where that saves time.
    fn place(
        self,
        graph: &CsrGraph,
        max_iterations: u32,
        module: &'static Module,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(Self, DeviceBuffer<u32>, u32), KernelError> {
        let (nodes, arcs) = (graph.num_nodes() as u32, self.arcs);
        let blocks = node_blocks(cuda.device().multiprocessors);
        let over_nodes = Launch::elements(nodes as usize, blocks);
        let (places, slots) = (cuda.alloc(nodes as usize)?, nodes + 1);
        let is_worth_it = u64::from(arcs) >= MIN_PLACED_ARCS && max_iterations >= MIN_PLACED_ITERATIONS;
        if !is_worth_it || slots <= self.cached_contributions(1, slots) {
            cuda.launch(module, "spmv_place_nodes", over_nodes, &[&nodes, &0_u32, &places])?;
            return Ok((self, places, slots));
        }
        let top = TOP_PLACES.min(nodes);
        let out_offsets = cuda.input(graph.successors().row_offsets())?;
        let degrees = cuda.alloc::<u32>(nodes as usize)?;
        cuda.launch(module, "spmv_degrees", over_nodes, &[&nodes, &out_offsets, &degrees])?;
        let (_, by_degree) = sort_with_indices(&degrees, SortOrder::Descending, cuda)?;
        cuda.launch(module, "spmv_place_nodes", over_nodes, &[&nodes, &top, &places])?;
        cuda.launch(module, "spmv_place_top", over_nodes, &[&top, &by_degree, &places])?;
        let columns = cuda.alloc::<u32>(arcs as usize)?;
        let over_arcs = Launch::elements(arcs as usize, blocks);
        cuda.launch(module, "spmv_relabel", over_arcs, &[&arcs, &self.columns, &places, &columns])?;
        Ok((Self { columns, ..self }, places, nodes + top + 1))
    }

    /// How many contributions to `vectors` vectors, one or two, a block has in shared memory.
    fn cached_contributions(&self, vectors: u32, slots: u32) -> u32 {
        (self.shared_memory / (8 * vectors)).min(slots)
    }

    fn multiply(
        &self,
        matrix: &Matrix,
        part: &VectorsOfLaunch,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { arcs, columns, lane_begins, chunk_ranks, .. } = self;
        let Matrix { module, nodes, slots, multiprocessors, cancel, .. } = matrix;
        let VectorsOfLaunch { count, states, from, sums, carries } = part;
        let cached = self.cached_contributions(*count, *slots);
        let entry = if *count == 1 { "spmv_multiply_1" } else { "spmv_multiply_2" };
        for first_chunk in (0..self.chunks).step_by(CHUNKS_PER_LAUNCH as usize) {
            let end_chunk = self.chunks.min(first_chunk.saturating_add(CHUNKS_PER_LAUNCH));
            let args: [&dyn Arg; 15] = [
                nodes,
                arcs,
                slots,
                &first_chunk,
                &end_chunk,
                &cached,
                columns,
                lane_begins,
                chunk_ranks,
                states,
                from,
                sums,
                carries,
                &cancel.flag,
                &cancel.cancelled,
            ];
            let blocks = (end_chunk - first_chunk).div_ceil(MULTIPLY_THREADS / 32).min(*multiprocessors);
            let launch = Launch { shared: cached * 8 * count, ..Launch::new(blocks, MULTIPLY_THREADS) };
            cuda.launch(module, entry, launch, &args)?;
        }
        Ok(())
    }
}

/// The vectors of a launch that multiplies: one, or two that are side by side.
pub(super) struct VectorsOfLaunch {
    count: u32,
    pub(super) states: DeviceBuffer<u64>,
    pub(super) from: DeviceBuffer<f64>,
    pub(super) sums: DeviceBuffer<f64>,
    /// None if the arcs are not in chunks.
    carries: DeviceBuffer<f64>,
}

/// What a product leaves, and the sums over the nodes that are updated from it.
pub(super) struct Products {
    sums: DeviceBuffer<f64>,
    carries: DeviceBuffer<f64>,
    /// Pairs of numbers.
    pub(super) block_sums: DeviceBuffer<f64>,
    pub(super) blocks_done: DeviceBuffer<u32>,
}

impl Products {
    /// Allocates the products with this many vectors.
    pub(super) fn new(matrix: &Matrix, width: usize, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let [sums, carries] = matrix.products_of_vector();
        Ok(Self {
            sums: cuda.alloc(sums * width)?,
            carries: cuda.alloc(carries * width)?,
            block_sums: cuda.alloc(2 * matrix.node_blocks() as usize * width)?,
            blocks_done: cuda.zeroed(1)?,
        })
    }
}
