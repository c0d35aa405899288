//! Initial centroids by the greedy variant of k-means++. `seeding.cuh` has the passes, and `../seeding.rs` the
//! algorithm.

use super::points::{BYTES_PER_LAUNCH, Points};
use super::{MODULE, THREADS};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::ml::kmeans_cluster::KMeansInput;
use crate::kernels::ml::kmeans_cluster::seeding::{Draws, num_candidates};
use crate::service::{KernelError, LaunchContext};

/// Points of a segment, as in `seeding.cuh`.
const SEGMENT: usize = 1024;
/// Threads of the block that chooses a candidate, as in `seeding.cuh`.
const SELECT_THREADS: u32 = 512;
/// Bytes that queued launches read at most before the host waits for them. A cancelled run goes on until they end.
const MAX_QUEUED_BYTES: usize = 4 * BYTES_PER_LAUNCH;

/// Bytes of the distances, their sums, and the random numbers.
pub(super) fn device_memory(points: u64, k: u32) -> u64 {
    let candidates = num_candidates(k) as u64;
    let of_points = points.saturating_mul(8).saturating_add((points / SEGMENT as u64 + 1).saturating_mul(8));
    candidates.saturating_mul(of_points.saturating_add(8 * u64::from(k).min(points)))
}

/// Returns `k` of the points. The coordinates in which they are compared are their scale and shift.
pub(super) fn choose(
    points: &Points,
    input: &KMeansInput,
    (scale, shift): (f32, &DeviceBuffer<f32>),
    cuda: &mut LaunchContext<'_>,
) -> Result<DeviceBuffer<f32>, KernelError> {
    let (k, width) = (input.k as usize, num_candidates(input.k));
    let mut draws = Draws::new(input.seed);
    let first = draws.point(points.count);
    let uniform: Vec<f64> = (0..(k - 1) * width).map(|_| draws.uniform()).collect();
    let uniform = cuda.upload(&uniform)?;
    let seeding = Seeding {
        width,
        scale,
        shift,
        segments: points.count.div_ceil(SEGMENT),
        // The first centroid is the only candidate.
        candidates: cuda.upload(&vec![first; width])?,
        best: cuda.alloc(1)?,
        sums: cuda.alloc(points.count.div_ceil(SEGMENT) * width)?,
    };
    let distances = [cuda.alloc::<f32>(points.count * width)?, cuda.alloc(points.count * width)?];
    let chosen = cuda.alloc::<u32>(k)?;
    let mut queued_bytes = 0;
    seeding.pass(points, None, &distances[0], cuda)?;
    for centroid in 0..k {
        let (from, to) = (&distances[centroid % 2], &distances[(centroid + 1) % 2]);
        let is_last = centroid + 1 == k;
        let uniform =
            if is_last { uniform.slice(..0) } else { uniform.slice(centroid * width..(centroid + 1) * width) };
        seeding.select(points, from, &uniform, &chosen.slice(centroid..=centroid), cuda)?;
        if !is_last {
            seeding.pass(points, Some(from), to, cuda)?;
        }
        queued_bytes += 4 * points.elements.len();
        if queued_bytes > MAX_QUEUED_BYTES {
            cuda.wait()?;
            queued_bytes = 0;
        }
    }
    let centroids = cuda.alloc(k * points.features)?;
    let args: [&dyn Arg; 5] = [&input.k, &points.d(), &chosen, &points.elements, &centroids];
    cuda.launch(&MODULE, "kmeans_gather", Launch::elements(centroids.len(), 1 << 16), &args)?;
    Ok(centroids)
}

/// What the passes have in common.
struct Seeding<'a> {
    /// The number of candidates.
    width: usize,
    scale: f32,
    shift: &'a DeviceBuffer<f32>,
    segments: usize,
    /// The points that are tried.
    candidates: DeviceBuffer<u32>,
    /// Which of them became a centroid.
    best: DeviceBuffer<u32>,
    /// The sums of the distances of each segment, by candidate.
    sums: DeviceBuffer<f64>,
}

impl Seeding<'_> {
    /// Computes the distances of all points for each candidate. `nearest` has those of the pass before.
    fn pass(
        &self,
        points: &Points,
        nearest: Option<&DeviceBuffer<f32>>,
        distances: &DeviceBuffer<f32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let entry = match self.width {
            4 => "kmeans_seed_4",
            8 => "kmeans_seed_8",
            _ => "kmeans_seed_16",
        };
        let (n, d, segments) = (points.n(), points.d(), self.segments as u32);
        let has_nearest = u32::from(nearest.is_some());
        let nearest = nearest.unwrap_or(distances);
        for (first, blocks) in points.launches(self.segments, SEGMENT) {
            let args: [&dyn Arg; 13] = [
                &first,
                &n,
                &d,
                &segments,
                &self.scale,
                self.shift,
                &points.elements,
                &self.candidates,
                &self.best,
                &has_nearest,
                nearest,
                distances,
                &self.sums,
            ];
            cuda.launch(&MODULE, entry, Launch::new(blocks, THREADS), &args)?;
        }
        Ok(())
    }

    /// Makes the best candidate a centroid, and draws the next candidates, one for each number of `uniform`.
    fn select(
        &self,
        points: &Points,
        distances: &DeviceBuffer<f32>,
        uniform: &DeviceBuffer<f64>,
        chosen: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let (n, segments, width, draws) = (points.n(), self.segments as u32, self.width as u32, uniform.len() as u32);
        let args: [&dyn Arg; 10] =
            [&n, &segments, &width, &draws, distances, &self.sums, uniform, &self.candidates, chosen, &self.best];
        cuda.launch(&MODULE, "kmeans_select", Launch::new(1, SELECT_THREADS), &args)
    }
}
