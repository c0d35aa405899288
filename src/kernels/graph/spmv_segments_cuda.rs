//! The host side of products with a graph that is arranged by segments; `spmv_segments.cuh` describes the algorithm.

use std::ops::Range;

use super::segmented::{MAX_SEGMENTS, MIN_ARCS, SEGMENT_NODES, SegmentedRows};
use super::spmv_cuda::VectorsOfLaunch;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::shared_memory;
use crate::service::{KernelError, LaunchContext};

/// `SPMV_MULTIPLY_THREADS` of `spmv.cuh`, and the warps of that.
const THREADS: u32 = 1024;
const WARPS: u32 = THREADS / 32;
/// The shared memory of a block: a segment's contributions, and a zero. `SEGMENT_NODES` of `spmv_segments.cuh` is the same.
const SHARED_BYTES: u32 = (SEGMENT_NODES + 1) * 8;
/// The time of a slice beyond that of its steps, in steps.
const SLICE_STEPS: f64 = 0.5;
/// The time of a step of a warp whose contributions come from anywhere, in steps of segments.
const FAR_STEP: f64 = 1.0;

/// Bytes of the rows by segments that are not those of the stored graph, and of the sums of pieces, at most.
pub(super) fn device_memory(nodes: u64, arcs: u64, width: u64) -> u64 {
    if arcs < MIN_ARCS {
        return 0;
    }
    // Each piece takes two words at least of what the form may have.
    let pieces = SegmentedRows::bytes(nodes, arcs) / 8;
    SegmentedRows::bytes(nodes, arcs).saturating_add(pieces.saturating_mul(width).saturating_mul(8))
}

/// The rows by segments on a device.
pub(super) struct SegmentedMatrix {
    pub(super) pieces: u32,
    pub(super) piece_offsets: DeviceBuffer<u32>,
    pub(super) places: DeviceBuffer<u32>,
    near_steps: DeviceBuffer<u32>,
    far_steps: DeviceBuffer<u32>,
    blocks: u32,
    far_warps: u32,
    /// The segment of each block.
    block_segments: DeviceBuffer<u32>,
    /// The first step of each warp.
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
            pieces: rows.piece_offsets[rows.piece_offsets.len() - 1],
            piece_offsets: cuda.input(&rows.piece_offsets)?,
            places: cuda.input(&rows.places)?,
            near_steps: cuda.input(&rows.near.steps)?,
            far_steps: cuda.input(&rows.far.steps)?,
            blocks: shares.block_segments.len() as u32,
            far_warps: shares.far_warps,
            block_segments: cuda.upload(&shares.block_segments)?,
            near_begins: cuda.upload(&shares.near_begins)?,
            far_begins: cuda.upload(&shares.far_begins)?,
        })
    }

    /// Launches the product with one vector, which fills the sums of all pieces.
    pub(super) fn multiply(
        &self,
        module: &'static Module,
        nodes: u32,
        vector: &VectorsOfLaunch,
        cancel: &CancelSignal,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Self { far_warps, block_segments, near_begins, near_steps, far_begins, far_steps, .. } = self;
        let VectorsOfLaunch { states, from, sums, .. } = vector;
        let args: [&dyn Arg; 12] = [
            &nodes,
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
        let launch = Launch { shared: SHARED_BYTES.next_multiple_of(16), ..Launch::new(self.blocks, THREADS) };
        cuda.launch(module, "segments_multiply", launch, &args)
    }
}

/// The work of the blocks and warps of a launch.
struct Shares {
    far_warps: u32,
    block_segments: Vec<u32>,
    near_begins: Vec<u32>,
    far_begins: Vec<u32>,
}

impl Shares {
    /// Divides the slices among warps so that all take about the same time.
    fn new(rows: &SegmentedRows, blocks: u32) -> Self {
        let all_far = 0..rows.far.begins.len() as u32 - 1;
        let costs: Vec<f64> = rows.segments.iter().map(|slices| cost(&rows.near.begins, slices)).collect();
        let (near, far) = (costs.iter().sum::<f64>(), FAR_STEP * cost(&rows.far.begins, &all_far));
        let far_warps = (f64::from(WARPS) * far / (near + far)).round() as u32;
        let far_warps = far_warps.clamp(u32::from(!all_far.is_empty()), WARPS - 1);
        let near_warps = WARPS - far_warps;

        let counts = divide(&costs, blocks);
        let (mut block_segments, mut near_begins) = (Vec::new(), Vec::new());
        for ((segment, slices), &blocks) in (0..).zip(&rows.segments).zip(&counts) {
            block_segments.extend(std::iter::repeat_n(segment, blocks as usize));
            near_begins.extend(cut(&rows.near.begins, slices, blocks * near_warps));
        }
        near_begins.push(rows.near.begins[rows.near.begins.len() - 1]);
        let mut far_begins: Vec<u32> = cut(&rows.far.begins, &all_far, blocks * far_warps).collect();
        far_begins.push(rows.far.begins[all_far.end as usize]);
        Self { far_warps, block_segments, near_begins, far_begins }
    }
}

/// The time of some slices, which begin at these steps, in steps.
fn cost(begins: &[u32], slices: &Range<u32>) -> f64 {
    let steps = begins[slices.end as usize] - begins[slices.start as usize];
    f64::from(steps) + SLICE_STEPS * slices.len() as f64
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

/// Returns where the parts of some slices begin that so many warps take, of about the same cost.
fn cut<'a>(begins: &'a [u32], slices: &'a Range<u32>, warps: u32) -> impl Iterator<Item = u32> + 'a {
    let all = cost(begins, slices);
    let mut slice = slices.start;
    (0..warps).map(move |warp| {
        let before = all * f64::from(warp) / f64::from(warps);
        while slice < slices.end && cost(begins, &(slices.start..slice)) < before {
            slice += 1;
        }
        begins[slice as usize]
    })
}
