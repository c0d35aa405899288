//! The host side of products with a graph that is arranged by segments; `spmv_segments.cuh` describes the algorithm.

use std::ops::Range;

use super::segmented::{LANES, MAX_SEGMENTS, MIN_ARCS, SEGMENT_NODES, SegmentedRows, Slices};
use super::spmv_cuda::VectorsOfLaunch;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::shared_memory;
use crate::service::{KernelError, LaunchContext};

/// `SPMV_MULTIPLY_THREADS` of `spmv.cuh`, and the warps of that.
const THREADS: u32 = 1024;
const WARPS: u32 = THREADS / 32;
/// Blocks of 256 threads that update nodes on a multiprocessor at a time, those of `SEGMENTS_UPDATE` of
/// `spmv_segments.cuh`. Sums over nodes depend on it.
pub(super) const UPDATE_BLOCKS: u32 = 6;
/// The shared memory of a block: a segment's contributions, and a zero. `SEGMENT_NODES` of `spmv_segments.cuh` is the same.
const SHARED_BYTES: u32 = (SEGMENT_NODES + 1) * 8;
/// The time of a step of a warp whose contributions come from anywhere, in steps of segments.
const FAR_STEP: f64 = 1.25;

/// Bytes of the rows by segments that are not those of the stored graph, and of the sums of slices, at most.
pub(super) fn device_memory(nodes: u64, arcs: u64, width: u64) -> u64 {
    if arcs < MIN_ARCS {
        return 0;
    }
    // Each sum is of a lane's step, which takes two words at least of what the form may have.
    let sums = SegmentedRows::bytes(nodes, arcs) / 8;
    SegmentedRows::bytes(nodes, arcs).saturating_add(sums.saturating_mul(width).saturating_mul(8))
}

/// The rows by segments on a device.
pub(super) struct SegmentedMatrix {
    /// The number of sums, one for each lane of a slice.
    pub(super) sums: u32,
    pub(super) piece_offsets: DeviceBuffer<u32>,
    pub(super) positions: DeviceBuffer<u32>,
    pub(super) places: DeviceBuffer<u32>,
    near_steps: DeviceBuffer<u32>,
    far_steps: DeviceBuffer<u32>,
    blocks: u32,
    far_warps: u32,
    /// The segment of each block.
    block_segments: DeviceBuffer<u32>,
    /// The first step and the first slice of each warp, and the end.
    near_begins: DeviceBuffer<u32>,
    far_begins: DeviceBuffer<u32>,
}

impl SegmentedMatrix {
    /// Whether a device has the shared memory that products take, and a block for each segment.
    pub(super) fn fits(cuda: &LaunchContext<'_>) -> bool {
        let device = cuda.device();
        shared_memory(device.compute_capability) >= SHARED_BYTES && device.multiprocessors as usize >= MAX_SEGMENTS
    }

    /// The number of places that there are to be, for so many nodes: those of all segments, and even, as two are read at a
    /// time.
    pub(super) fn slots(nodes: u32) -> u32 {
        (nodes + 1).max(MAX_SEGMENTS as u32 * SEGMENT_NODES).next_multiple_of(2)
    }

    pub(super) fn new(rows: &SegmentedRows, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let shares = Shares::new(rows, cuda.device().multiprocessors);
        Ok(Self {
            sums: (rows.near.len() + rows.far.len()) * LANES as u32,
            piece_offsets: cuda.input(&rows.piece_offsets)?,
            positions: cuda.input(&rows.positions)?,
            places: cuda.input(&rows.places)?,
            near_steps: cuda.input(&rows.near.steps)?,
            far_steps: cuda.input(&rows.far.steps)?,
            blocks: shares.block_segments.len() as u32,
            far_warps: shares.far_warps,
            block_segments: cuda.upload(&shares.block_segments)?,
            near_begins: cuda.upload(shares.near_begins.as_flattened())?,
            far_begins: cuda.upload(shares.far_begins.as_flattened())?,
        })
    }

    /// Launches the product with one vector, which fills the sums of all slices.
    pub(super) fn multiply(
        &self,
        module: &'static Module,
        vector: &VectorsOfLaunch,
        cancel: &CancelSignal,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { far_warps, block_segments, near_begins, near_steps, far_begins, far_steps, .. } = self;
        let VectorsOfLaunch { states, from, sums, .. } = vector;
        let args: [&dyn Arg; 11] = [
            far_warps,
            block_segments,
            near_begins,
            near_steps,
            far_begins,
            far_steps,
            states,
            from,
            sums,
            &cancel.flag,
            &cancel.cancelled,
        ];
        let launch = Launch::new(self.blocks, THREADS);
        let launch = Launch { shared: SHARED_BYTES.next_multiple_of(16), overlapping: true, ..launch };
        cuda.launch(module, "segments_multiply", launch, &args)
    }
}

/// The work of the blocks and warps of a launch.
struct Shares {
    far_warps: u32,
    block_segments: Vec<u32>,
    near_begins: Vec<[u32; 2]>,
    far_begins: Vec<[u32; 2]>,
}

impl Shares {
    /// Divides the slices among warps so that all take about the same time.
    fn new(rows: &SegmentedRows, blocks: u32) -> Self {
        let all_far = 0..rows.far.len();
        let costs: Vec<f64> = rows.segments.iter().map(|slices| cost(&rows.near.begins, slices)).collect();
        let (near, far) = (costs.iter().sum::<f64>(), FAR_STEP * cost(&rows.far.begins, &all_far));
        let far_warps = (f64::from(WARPS) * far / (near + far)).round() as u32;
        let far_warps = far_warps.clamp(u32::from(!all_far.is_empty()), WARPS - 1);
        let near_warps = WARPS - far_warps;

        let counts = divide(&costs, blocks);
        let (mut block_segments, mut near_begins) = (Vec::new(), Vec::new());
        for ((segment, slices), &blocks) in (0..).zip(&rows.segments).zip(&counts) {
            block_segments.extend(std::iter::repeat_n(segment, blocks as usize));
            near_begins.extend(cut(&rows.near, slices, blocks * near_warps));
        }
        near_begins.push(rows.near.begin(rows.near.len()));
        let far_begins = cut(&rows.far, &all_far, blocks * far_warps).chain([rows.far.begin(all_far.end)]);
        // Their sums come after those of the slices from segments.
        let far_begins = far_begins.map(|[step, slice]| [step, rows.near.len() + slice]).collect();
        Self { far_warps, block_segments, near_begins, far_begins }
    }
}

/// The time of some slices, which begin at these steps, in steps.
fn cost(begins: &[u32], slices: &Range<u32>) -> f64 {
    f64::from(begins[slices.end as usize] - begins[slices.start as usize])
}

/// Divides blocks in proportion to costs; each cost but 0 gets one at least. There are at least as many blocks as costs.
fn divide(costs: &[f64], blocks: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = costs.iter().map(|&cost| u32::from(cost > 0.0)).collect();
    let share = |counts: &[u32], index: usize| costs[index] / f64::from(counts[index].max(1));
    for _ in counts.iter().sum()..blocks {
        let most = (0..costs.len()).max_by(|&a, &b| share(&counts, a).total_cmp(&share(&counts, b)));
        counts[most.expect("there are segments")] += 1;
    }
    counts
}

/// Returns the first step and the first slice of the parts of some slices that so many warps take, of about the same cost.
fn cut<'a>(slices: &'a Slices, range: &'a Range<u32>, warps: u32) -> impl Iterator<Item = [u32; 2]> + 'a {
    let all = cost(&slices.begins, range);
    let mut slice = range.start;
    (0..warps).map(move |warp| {
        let before = all * f64::from(warp) / f64::from(warps);
        while slice < range.end && cost(&slices.begins, &(range.start..slice)) < before {
            slice += 1;
        }
        slices.begin(slice)
    })
}
