//! The nearest centroid of each point. `assign.cuh` has the algorithm, and `split.cuh` the form of points and
//! centroids.

use super::points::Points;
use super::{MODULE, THREADS};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::device::cancel::CancelSignal;
use crate::service::{KernelError, LaunchContext};

/// Features of a chunk of a split row, and bytes of a chunk, as in `split.cuh`.
const CHUNK: usize = 32;
const CHUNK_BYTES: usize = 128;
/// Centroids of a tile; and points of a block, which are its threads as well. As in `assign.cuh`.
const TILE: usize = 128;
const ROWS: usize = 128;
/// Multiplications of numbers that one launch does, unless that leaves multiprocessors without work: some milliseconds.
const MULTIPLICATIONS_PER_LAUNCH: usize = 1 << 37;

/// Bytes of the split points and centroids.
pub(super) fn device_memory(points: u64, k: u64, features: u64) -> u64 {
    let row = features.div_ceil(CHUNK as u64).saturating_mul(CHUNK_BYTES as u64);
    (points + k + (ROWS + TILE) as u64).saturating_mul(row).saturating_add((k + TILE as u64).saturating_mul(4))
}

/// The split points and centroids.
pub(super) struct Assignment {
    pub(super) k: usize,
    shape: Shape,
    /// Chunks of a row.
    chunks: usize,
    scale: f32,
    shift: DeviceBuffer<f32>,
    points: DeviceBuffer<u32>,
    centroids: DeviceBuffer<u32>,
    half_norms: DeviceBuffer<f32>,
    cancel: CancelSignal,
}

/// The entry that assigns points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    entry: &'static str,
    stages: usize,
    /// Whether the points of a block stay in shared memory.
    is_resident: bool,
}

impl Shape {
    /// Chooses it by the shared memory that a device has, so that two blocks fit into a multiprocessor where they can.
    fn new(compute_capability: (u32, u32), chunks: usize) -> Self {
        // From the table of technical specifications in the CUDA programming guide, less 1 KB that each block takes.
        let shared_of_two = match compute_capability {
            (9 | 10, _) => 226 << 10,
            _ => return Self { entry: "kmeans_assign_2", stages: 2, is_resident: false },
        };
        let resident = Self { entry: "kmeans_assign_3", stages: 3, is_resident: true };
        Self { is_resident: 2 * resident.shared(chunks) <= shared_of_two, ..resident }
    }

    /// Bytes of shared memory of a block.
    fn shared(self, chunks: usize) -> usize {
        let chunks_of_points = if self.is_resident { chunks } else { self.stages };
        (chunks_of_points * ROWS + self.stages * TILE) * CHUNK_BYTES
    }
}

impl Assignment {
    /// Splits the points.
    pub(super) fn new(
        points: &Points,
        k: usize,
        scale: f32,
        shift: DeviceBuffer<f32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let chunks = points.features.div_ceil(CHUNK);
        let shape = Shape::new(cuda.device().compute_capability, chunks);
        let (rows, columns) = (points.count.next_multiple_of(ROWS), k.next_multiple_of(TILE));
        let words = chunks * CHUNK_BYTES / 4;
        let split = cuda.alloc(rows * words)?;
        let (n, d, num_chunks) = (points.n(), points.d(), chunks as u32);
        for first in (0..rows).step_by(points.rows_per_launch()) {
            let some = points.rows_per_launch().min(rows - first);
            let (first, count) = (first as u32, some as u32);
            let args: [&dyn Arg; 9] = [&n, &d, &num_chunks, &first, &count, &scale, &shift, &points.elements, &split];
            cuda.launch(&MODULE, "kmeans_split_points", Launch::elements(some * chunks * CHUNK / 2, 1 << 16), &args)?;
        }
        let (centroids, half_norms) = (cuda.alloc(columns * words)?, cuda.alloc(columns)?);
        let cancel = CancelSignal::new(cuda)?;
        Ok(Self { k, shape, chunks, scale, shift, points: split, centroids, half_norms, cancel })
    }

    /// Writes the nearest centroid of each point to `labels`, and adds the number of those that change to `changed`.
    pub(super) fn run(
        &self,
        points: &Points,
        labels: &DeviceBuffer<u32>,
        changed: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let Shape { entry, is_resident, .. } = self.shape;
        let words = self.points.len() / points.count.next_multiple_of(ROWS);
        let tiles = self.k.div_ceil(TILE);
        let blocks = points.count.div_ceil(ROWS);
        let multiplications = (ROWS * TILE * CHUNK).saturating_mul(tiles * self.chunks);
        let step = (MULTIPLICATIONS_PER_LAUNCH / multiplications).max(cuda.device().multiprocessors as usize);
        let (tiles, chunks, is_resident) = (tiles as u32, self.chunks as u32, u32::from(is_resident));
        let CancelSignal { flag, cancelled } = self.cancel;
        for first in (0..blocks).step_by(step) {
            let blocks = step.min(blocks - first);
            let some = first * ROWS..points.count.min((first + blocks) * ROWS);
            let (count, labels) = (some.len() as u32, labels.slice(some.clone()));
            let split = self.points.slice(some.start * words..);
            let args: [&dyn Arg; 11] = [
                &count,
                &tiles,
                &chunks,
                &is_resident,
                &split,
                &self.centroids,
                &self.half_norms,
                &labels,
                changed,
                &flag,
                &cancelled,
            ];
            let shared = self.shape.shared(self.chunks) as u32;
            let launch = Launch { shared, ..Launch::new(blocks as u32, ROWS as u32) };
            cuda.launch(&MODULE, entry, launch, &args)?;
        }
        Ok(())
    }

    /// Moves the centroids to the means of their clusters, and splits them. Where `sizes` is null they are only split;
    /// where `condition` is a state, nothing is done if it has empty clusters.
    #[expect(clippy::too_many_arguments, reason = "they are those of the device code")]
    pub(super) fn update(
        &self,
        points: &Points,
        centroids: &DeviceBuffer<f32>,
        sums: &dyn Arg,
        sizes: &dyn Arg,
        condition: &dyn Arg,
        movements: &dyn Arg,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let (k, d, chunks) = (self.k as u32, points.d(), self.chunks as u32);
        let args: [&dyn Arg; 12] = [
            &k,
            &d,
            &chunks,
            &self.scale,
            &self.shift,
            sums,
            sizes,
            condition,
            centroids,
            movements,
            &self.centroids,
            &self.half_norms,
        ];
        cuda.launch(&MODULE, "kmeans_update", Launch::new(self.half_norms.len() as u32, THREADS), &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_fit_into_a_multiprocessor_of_a_large_device() {
        for chunks in [1, 4, 5, 1_000] {
            assert!(2 * Shape::new((9, 0), chunks).shared(chunks) <= 226 << 10);
            for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0)] {
                assert_eq!(Shape::new(capability, chunks).shared(chunks), 64 << 10, "what every device has");
            }
        }
        assert!(Shape::new((9, 0), 4).is_resident && !Shape::new((9, 0), 5).is_resident);
    }
}
