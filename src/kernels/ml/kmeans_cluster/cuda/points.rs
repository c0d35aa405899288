//! The points on the device, and the passes over them.

use super::{MODULE, THREADS};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::ml::kmeans_cluster::KMeansInput;
use crate::kernels::ml::kmeans_cluster::features::Features;
use crate::service::{KernelError, LaunchContext};

/// The parts that a pass over the points is cut into at most, and the least points of one. Sums are those of parts in
/// order, so these do not depend on the device.
const MAX_PARTS: usize = 1024;
const MIN_PART: usize = 256;
/// Bytes that one launch of a pass reads: a millisecond or a few.
pub(super) const BYTES_PER_LAUNCH: usize = 1 << 30;

/// Bytes of the sums of the parts.
pub(super) fn device_memory(features: u64) -> u64 {
    features.saturating_mul(8 * (4 * MAX_PARTS as u64 + 3)).saturating_add(8 * MAX_PARTS as u64)
}

/// The points.
pub(super) struct Points {
    pub(super) elements: DeviceBuffer<f32>,
    pub(super) count: usize,
    pub(super) features: usize,
    /// Points of a part of a pass, and the number of parts.
    pub(super) part_len: usize,
    pub(super) parts: usize,
}

impl Points {
    pub(super) fn new(input: &KMeansInput, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let (count, features) = (input.num_points(), input.features());
        let part_len = count.div_ceil(MAX_PARTS).max(MIN_PART);
        let elements = cuda.input(&input.data)?;
        Ok(Self { elements, count, features, part_len, parts: count.div_ceil(part_len) })
    }

    /// The number of points as the device code takes it.
    pub(super) fn n(&self) -> u32 {
        self.count as u32
    }

    /// The number of features as the device code takes it.
    pub(super) fn d(&self) -> u32 {
        self.features as u32
    }

    /// Points that one launch may read.
    pub(super) fn rows_per_launch(&self) -> usize {
        BYTES_PER_LAUNCH / (4 * self.features) + 1
    }

    /// The first block and the number of blocks of each launch of a pass, each of whose blocks reads `rows` points.
    pub(super) fn launches(&self, blocks: usize, rows: usize) -> impl Iterator<Item = (u32, u32)> + use<> {
        let step = (self.rows_per_launch() / rows).max(1);
        (0..blocks).step_by(step).map(move |first| (first as u32, step.min(blocks - first) as u32))
    }

    /// Computes the means and variances.
    pub(super) fn features(&self, cuda: &mut LaunchContext<'_>) -> Result<Features, KernelError> {
        let (n, d, part_len) = (self.n(), self.d(), self.part_len as u32);
        let parts = cuda.alloc::<f64>(4 * self.parts * self.features)?;
        for (first, blocks) in self.launches(self.parts, self.part_len) {
            let args: [&dyn Arg; 6] = [&n, &d, &part_len, &first, &self.elements, &parts];
            cuda.launch(&MODULE, "kmeans_feature_parts", Launch::new(blocks, THREADS), &args)?;
        }
        let merged = cuda.alloc::<f64>(3 * self.features)?;
        let num_parts = self.parts as u32;
        let args: [&dyn Arg; 6] = [&n, &d, &num_parts, &self.elements, &parts, &merged];
        cuda.launch(&MODULE, "kmeans_feature_merge", Launch::new(d.div_ceil(THREADS), THREADS), &args)?;
        let merged = cuda.download(&merged)?;
        let (means, rest) = merged.split_at(self.features);
        let (variances, extents) = rest.split_at(self.features);
        Ok(Features {
            means: means.to_vec(),
            mean_variance: variances.iter().sum::<f64>() / self.features as f64,
            extent: extents.iter().copied().fold(0.0, f64::max),
        })
    }
}
