//! The nearest centroid of each point on the CPU: products of blocks of points and panels of centroids in vector code,
//! reduced to the best centroid of each point as soon as they are computed.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::features::Coordinates;
use crate::service::{KernelError, RunContext};

/// Points whose products with a panel are in registers at a time.
const GROUP: usize = 6;
/// Groups of a block, which stays in the cache while all panels go by.
const GROUPS: usize = 8;
const BLOCK: usize = GROUP * GROUPS;
/// Vectors of a panel's row.
const VECTORS: usize = 2;
/// Multiplications between two looks at the context: well below a millisecond.
const MULTIPLICATIONS_PER_CHECK: usize = 1 << 23;
/// Multiplications that are worth a task.
const MULTIPLICATIONS_PER_TASK: usize = 1 << 20;

/// The centroids, arranged for the vector code: panels of as many centroids as two vectors have lanes, the coordinates
/// of a panel by feature.
#[derive(Debug)]
pub(super) struct Panels {
    features: usize,
    /// Centroids of a panel.
    width: usize,
    numbers: Vec<f32>,
    /// `|c|^2 / 2` of each centroid, and infinity where the last panel has none.
    half_norms: Vec<f32>,
}

impl Panels {
    /// Bytes of the panels of this many centroids.
    pub(super) fn bytes(centroids: u64, features: u64) -> u64 {
        let padded = centroids.saturating_add((VECTORS * 16) as u64);
        padded.saturating_mul(features.saturating_add(1)).saturating_mul(4)
    }

    pub(super) fn new(centroids: &[f32], coordinates: &Coordinates) -> Self {
        let features = coordinates.shift.len();
        let width = VECTORS * Arch::new().dispatch(Lanes);
        let count = centroids.len() / features;
        let panels = count.div_ceil(width);
        let mut numbers = vec![0.0; panels * width * features];
        let mut half_norms = vec![f32::INFINITY; panels * width];
        let of_panel = |((centroids, numbers), half_norms): ((&[f32], &mut [f32]), &mut [f32])| {
            for (column, (centroid, half_norm)) in centroids.chunks_exact(features).zip(half_norms).enumerate() {
                let mut norm = 0.0;
                for (row, x) in numbers.chunks_exact_mut(width).zip(coordinates.map(centroid)) {
                    row[column] = x;
                    norm += f64::from(x) * f64::from(x);
                }
                *half_norm = (norm / 2.0) as f32;
            }
        };
        let centroids = centroids.par_chunks(width * features);
        centroids
            .zip(numbers.par_chunks_mut(width * features))
            .zip(half_norms.par_chunks_mut(width))
            .for_each(of_panel);
        Self { features, width, numbers, half_norms }
    }

    /// Writes the nearest centroid of each point to `labels`, and returns whether any label changed. Of equally near
    /// centroids it is the first.
    pub(super) fn assign(
        &self,
        points: &[f32],
        coordinates: &Coordinates,
        labels: &mut [u32],
        context: &RunContext<'_>,
    ) -> Result<bool, KernelError> {
        let arch = Arch::new();
        let block_multiplications = BLOCK * self.numbers.len();
        let blocks_of_task = (MULTIPLICATIONS_PER_TASK / block_multiplications.max(1)).clamp(1, 64);
        let task = |(points, labels): (&[f32], &mut [u32])| {
            let mut packed = vec![[0.0; GROUP]; GROUPS * self.features];
            let mut changed = false;
            for (points, labels) in points.chunks(BLOCK * self.features).zip(labels.chunks_mut(BLOCK)) {
                self.pack(points, coordinates, &mut packed);
                changed |= arch.dispatch(AssignBlock { panels: self, packed: &packed, labels, context })?;
            }
            Ok(changed)
        };
        let tasks = points.par_chunks(blocks_of_task * BLOCK * self.features);
        let labels = labels.par_chunks_mut(blocks_of_task * BLOCK);
        tasks.zip(labels).map(task).try_reduce(|| false, |one, other| Ok(one | other))
    }

    /// Arranges the coordinates of a block by group, then by feature, then by point.
    fn pack(&self, points: &[f32], coordinates: &Coordinates, packed: &mut [[f32; GROUP]]) {
        for (index, point) in points.chunks_exact(self.features).enumerate() {
            let group = &mut packed[index / GROUP * self.features..][..self.features];
            for (to, x) in group.iter_mut().zip(coordinates.map(point)) {
                to[index % GROUP] = x;
            }
        }
    }
}

/// The number of lanes of a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// A block of points, of which the last groups may be left over from another block.
struct AssignBlock<'a> {
    panels: &'a Panels,
    packed: &'a [[f32; GROUP]],
    labels: &'a mut [u32],
    context: &'a RunContext<'a>,
}

/// The best score of a point in each lane, and the panel that has it.
#[derive(Clone, Copy)]
struct Best<S: Simd> {
    scores: [S::f32s; VECTORS],
    panels: [S::u32s; VECTORS],
}

impl WithSimd for AssignBlock<'_> {
    type Output = Result<bool, KernelError>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<bool, KernelError> {
        let Panels { features, width, numbers, half_norms } = self.panels;
        let nothing =
            Best::<S> { scores: [simd.splat_f32s(f32::NEG_INFINITY); VECTORS], panels: [simd.splat_u32s(0); VECTORS] };
        let mut best = [[nothing; GROUP]; GROUPS];
        let groups = self.labels.len().div_ceil(GROUP);
        let panels_per_check = MULTIPLICATIONS_PER_CHECK / (BLOCK * width * features) + 1;
        let panels = numbers.chunks_exact(width * features).zip(half_norms.chunks_exact(*width));
        for (index, (panel, half_norms)) in panels.enumerate() {
            if index % panels_per_check == 0 {
                self.context.check()?;
            }
            let (rows, half_norms) = (S::as_simd_f32s(panel).0, S::as_simd_f32s(half_norms).0);
            for (group, best) in self.packed.chunks_exact(*features).zip(&mut best).take(groups) {
                let mut sums = [[simd.splat_f32s(0.0); VECTORS]; GROUP];
                for (points, row) in group.iter().zip(rows.as_chunks::<VECTORS>().0) {
                    for (sums, &x) in sums.iter_mut().zip(points) {
                        let x = simd.splat_f32s(x);
                        for (sum, &column) in sums.iter_mut().zip(row) {
                            *sum = simd.mul_add_f32s(x, column, *sum);
                        }
                    }
                }
                for (best, sums) in best.iter_mut().zip(&sums) {
                    for vector in 0..VECTORS {
                        let score = simd.sub_f32s(sums[vector], half_norms[vector]);
                        let is_better = simd.greater_than_f32s(score, best.scores[vector]);
                        let panel = simd.splat_u32s(index as u32);
                        best.scores[vector] = simd.select_f32s(is_better, score, best.scores[vector]);
                        best.panels[vector] = simd.select_u32s(is_better, panel, best.panels[vector]);
                    }
                }
            }
        }
        let mut changed = false;
        for (label, best) in self.labels.iter_mut().zip(best.as_flattened()) {
            let best_score = simd.reduce_max_f32s(simd.max_f32s(best.scores[0], best.scores[1]));
            let (scores, panels) = (bytemuck::cast_slice(&best.scores), bytemuck::cast_slice(&best.panels));
            let nearest = first_column(best_score, scores, panels, *width as u32);
            changed |= *label != nearest;
            *label = nearest;
        }
        Ok(changed)
    }
}

/// The lowest column with this score, of the best ones of all lanes.
#[inline(always)]
fn first_column(score: f32, scores: &[f32], panels: &[u32], width: u32) -> u32 {
    let lanes = scores.iter().zip(panels).zip(0..width);
    let columns = lanes.map(|((&of_lane, panel), lane)| if of_lane == score { panel * width + lane } else { u32::MAX });
    columns.fold(u32::MAX, u32::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn labels_are_those_of_the_nearest_centroids() {
        let mut random = Random::new(3);
        for (points, centroids, features) in [(1, 1, 1), (5, 2, 3), (49, 33, 1), (200, 70, 17), (1_000, 5, 130)] {
            let mut numbers =
                |count: usize| -> Vec<f32> { (0..count).map(|_| random.between(-1.0, 1.0) as f32).collect() };
            let (data, centers) = (numbers(points * features), numbers(centroids * features));
            let coordinates = Coordinates { scale: 1.0, shift: vec![0.25; features] };
            let mut labels = vec![u32::MAX; points];
            let panels = Panels::new(&centers, &coordinates);
            let context = RunContext::detached();
            assert!(panels.assign(&data, &coordinates, &mut labels, &context).unwrap());
            assert!(!panels.assign(&data, &coordinates, &mut labels, &context).unwrap());
            for (point, &label) in data.chunks(features).zip(&labels) {
                let distance = |centroid: &[f32]| -> f64 {
                    point.iter().zip(centroid).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
                };
                let least = centers.chunks(features).map(distance).fold(f64::INFINITY, f64::min);
                let of_label = distance(&centers[label as usize * features..][..features]);
                assert!(of_label <= least + 1e-5 * features as f64, "{of_label} {least}");
            }
        }
    }

    #[test]
    fn the_first_of_equal_centroids_wins() {
        let coordinates = Coordinates { scale: 1.0, shift: vec![0.0] };
        let mut centers = vec![9.0; 100];
        centers[37] = 1.0;
        centers[38] = 1.0;
        centers[99] = 1.0;
        let mut labels = [0; 3];
        let panels = Panels::new(&centers, &coordinates);
        panels.assign(&[1.0, 9.0, 1.5], &coordinates, &mut labels, &RunContext::detached()).unwrap();
        assert_eq!(labels, [37, 0, 37]);
    }

    #[test]
    fn a_cancelled_assignment_ends() {
        let coordinates = Coordinates { scale: 1.0, shift: vec![0.0] };
        let context = RunContext::new(Some(&|| true), None);
        let result = Panels::new(&[1.0], &coordinates).assign(&[1.0], &coordinates, &mut [0], &context);
        assert!(matches!(result, Err(KernelError::Cancelled)), "{result:?}");
    }
}
