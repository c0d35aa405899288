//! Breadth-first search on CUDA from some sources at once, each with a distance for each node. `breadth_first_search.cu`
//! describes what its entries take, and `frontier.cuh` the algorithm.

use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::csr::Adjacency;
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/breadth-first-search"));

/// Pairs of a source and a node that are searched at once.
const BATCH_ITEMS: u64 = 1 << 28;
/// A level pulls where its arcs times this are more than all arcs.
const PULL_FACTOR: u32 = 8;
/// Blocks of a launch of wide levels, for each multiprocessor: as many as fit.
const WIDE_BLOCKS: u32 = 4;
/// Entries of a level for each block of a launch of narrow levels. Fewer blocks wait less at the barrier of each level.
const NARROW_ENTRIES: u32 = 64;
/// How many times as many entries a level of such a launch may get.
const NARROW_GROWTH: u32 = 4;
/// The 64-bit words of `Frontier` of `frontier.cuh`.
const FRONTIER_WORDS: usize = 8;

/// The levels of a launch. The host then looks whether they have become narrow or wide, and whether to go on.
#[derive(Debug, Clone, Copy)]
struct LevelsPerLaunch {
    first: u32,
    wide: u32,
    narrow: u32,
}

impl LevelsPerLaunch {
    /// Of a search that is to reach all nodes: narrow ones take some milliseconds.
    const TO_ALL: Self = Self { first: 8, wide: 64, narrow: 1024 };
    /// Of a search that may end before.
    const TO_SOME: Self = Self { first: 2, wide: 2, narrow: 64 };
}

/// Returns the number of sources of a batch; further sources follow in other batches.
pub(super) fn batch(nodes: u64, sources: u64) -> u64 {
    (BATCH_ITEMS / nodes.max(1)).clamp(1, sources.max(1))
}

/// Returns the bytes that the state of a search holds on the device, without the graph.
pub(super) fn state_memory(nodes: u64, sources: u64) -> u64 {
    batch(nodes, sources).saturating_mul(nodes.saturating_mul(8).saturating_add(4)).saturating_add(1 << 12)
}

/// The arcs of a graph on the device, by the nodes that they start at and by those that they lead to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arcs {
    pub(super) out_row: DeviceBuffer<u32>,
    pub(super) out_column: DeviceBuffer<u32>,
    in_row: DeviceBuffer<u32>,
    in_column: DeviceBuffer<u32>,
    /// [`PULL_FACTOR`], or 0 where there are no in-arcs.
    pull_factor: u32,
}

impl Arcs {
    /// Copies them to the device, unless they are there. Without `previous` every level pushes.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn new(
        next: &Adjacency,
        previous: Option<&Adjacency>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let (out_row, out_column) = (cuda.input(next.row_offsets())?, cuda.input(next.column_indices())?);
        let (in_row, in_column, pull_factor) = match previous {
            Some(previous) if !std::ptr::eq(previous, next) => {
                (cuda.input(previous.row_offsets())?, cuda.input(previous.column_indices())?, PULL_FACTOR)
            }
            Some(_) => (out_row, out_column, PULL_FACTOR),
            None => (out_row, out_column, 0),
        };
        Ok(Self { out_row, out_column, in_row, in_column, pull_factor })
    }

    fn num_nodes(&self) -> usize {
        self.out_row.len() - 1
    }
}

/// The state of a search on the device.
#[derive(Debug)]
pub(super) struct BreadthFirstSearch {
    pub(super) arcs: Arcs,
    /// The distance of each item, source by source, [`u32::MAX`] if it is not reached.
    pub(super) distances: DeviceBuffer<u32>,
    pub(super) frontier: DeviceBuffer<u64>,
    list: DeviceBuffer<u32>,
    cancel: CancelFlag,
}

impl BreadthFirstSearch {
    /// Allocates the state of searches from up to `batch` sources.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn new(arcs: Arcs, batch: usize, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let items = arcs.num_nodes() * batch;
        Ok(Self {
            arcs,
            distances: cuda.alloc(items)?,
            frontier: cuda.alloc(FRONTIER_WORDS)?,
            list: cuda.alloc(items)?,
            cancel: cuda.cancel_flag(),
        })
    }

    /// Sets the elements of an array with one element for each item to [`u32::MAX`].
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn clear(
        items: u32,
        array: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let by_item = Launch::elements(items as usize, u32::MAX);
        cuda.launch(&MODULE, "breadth_first_search_clear", by_item, &[&items, array])
    }

    /// Finds the distances from each of a batch of sources: wide levels with all blocks, and narrow ones with few.
    ///
    /// # Errors
    /// Those of the launch context.
    pub(super) fn run(&self, sources: &[u32], cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        self.run_levels(sources, LevelsPerLaunch::TO_ALL, |_| Ok(false), cuda)
    }

    /// Finds the distances from each of a batch of sources, until `is_done` returns true, which is called between launches.
    ///
    /// # Errors
    /// Those of the launch context and of `is_done`.
    pub(super) fn run_until(
        &self,
        sources: &[u32],
        is_done: impl FnMut(&mut LaunchContext<'_>) -> Result<bool, KernelError>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        self.run_levels(sources, LevelsPerLaunch::TO_SOME, is_done, cuda)
    }

    fn run_levels(
        &self,
        sources: &[u32],
        per_launch: LevelsPerLaunch,
        mut is_done: impl FnMut(&mut LaunchContext<'_>) -> Result<bool, KernelError>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { arcs, distances, frontier, list, cancel } = self;
        let Arcs { out_row, out_column, in_row, in_column, pull_factor } = arcs;
        let (nodes, num_sources) = (arcs.num_nodes() as u32, sources.len() as u32);
        let sources = cuda.upload(sources)?;
        cuda.zero(frontier)?;
        Self::clear(nodes * num_sources, distances, cuda)?;
        let start: [&dyn Arg; 7] = [&nodes, &num_sources, &sources, out_row, distances, list, frontier];
        cuda.launch(&MODULE, "breadth_first_search_start", Launch::new(1, 256), &start)?;
        let multiprocessors = cuda.device().multiprocessors;
        let wide_blocks = WIDE_BLOCKS * multiprocessors;
        let mut shape = (wide_blocks, per_launch.first, u32::MAX);
        loop {
            let (blocks, levels, max_entries) = shape;
            let args: [&dyn Arg; 13] = [
                &nodes,
                &num_sources,
                pull_factor,
                out_row,
                out_column,
                in_row,
                in_column,
                distances,
                list,
                frontier,
                cancel,
                &levels,
                &max_entries,
            ];
            cuda.launch(&MODULE, "breadth_first_search_levels", Launch::cooperative(blocks, 256), &args)?;
            let mut progress = [0_u64; FRONTIER_WORDS];
            cuda.download_into(frontier, &mut progress)?;
            let [_, begin, end, ..] = progress;
            if begin == end || is_done(cuda)? {
                return Ok(());
            }
            let entries = u32::try_from(end - begin).unwrap_or(u32::MAX);
            let blocks = entries.div_ceil(NARROW_ENTRIES).next_power_of_two().max(4);
            shape = if blocks <= multiprocessors {
                (blocks, per_launch.narrow, blocks * NARROW_ENTRIES * NARROW_GROWTH)
            } else {
                (wide_blocks, per_launch.wide, u32::MAX)
            };
        }
    }
}
