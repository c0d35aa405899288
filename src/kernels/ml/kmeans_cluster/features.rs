//! The mean and variance of each feature, and the coordinates in which points and centroids are compared.

use rayon::prelude::*;

use crate::service::{KernelError, RunContext};

/// Returns the points of a task of a pass over points with this many features. Sums are those of tasks in order, so
/// they do not depend on the threads.
pub(super) fn points_of_task(features: usize) -> usize {
    const MAX_POINTS: usize = 1 << 12;
    const MAX_NUMBERS: usize = 1 << 19;
    (MAX_NUMBERS / features.max(1)).clamp(1, MAX_POINTS)
}

/// The features of the points.
#[derive(Clone, Debug)]
pub(super) struct Features {
    /// The mean of each feature.
    pub(super) means: Vec<f64>,
    /// The mean over the features of their variance.
    pub(super) mean_variance: f64,
    /// The largest distance of a coordinate from the mean of its feature.
    pub(super) extent: f64,
}

/// Sums of the distances of a feature from an origin and of their squares, and the least and greatest value.
#[derive(Clone, Copy)]
struct Part {
    sum: f64,
    squares: f64,
    least: f32,
    greatest: f32,
}

const EMPTY: Part = Part { sum: 0.0, squares: 0.0, least: f32::INFINITY, greatest: f32::NEG_INFINITY };

impl Features {
    /// Computes them for points of this many features.
    pub(super) fn new(points: &[f32], features: usize, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let origin = &points[..features];
        let of_task = |points: &[f32]| {
            context.check()?;
            let mut parts = vec![EMPTY; features];
            for point in points.chunks_exact(features) {
                for ((part, &x), &origin) in parts.iter_mut().zip(point).zip(origin) {
                    let distance = f64::from(x) - f64::from(origin);
                    part.sum += distance;
                    part.squares += distance * distance;
                    part.least = part.least.min(x);
                    part.greatest = part.greatest.max(x);
                }
            }
            Ok(parts)
        };
        let len = points_of_task(features) * features;
        let parts: Result<Vec<Vec<Part>>, KernelError> = points.par_chunks(len).map(of_task).collect();
        let parts = parts?.into_iter().reduce(|mut sums, others| {
            for (sum, other) in sums.iter_mut().zip(others) {
                sum.sum += other.sum;
                sum.squares += other.squares;
                sum.least = sum.least.min(other.least);
                sum.greatest = sum.greatest.max(other.greatest);
            }
            sums
        });
        let (parts, count) = (parts.unwrap_or_default(), (points.len() / features) as f64);
        let mut means = Vec::with_capacity(features);
        let (mut variances, mut extent) = (0.0, 0.0_f64);
        for (part, &origin) in parts.iter().zip(origin) {
            let step = part.sum / count;
            let mean = f64::from(origin) + step;
            means.push(mean);
            variances += (part.squares / count - step * step).max(0.0);
            extent = extent.max(f64::from(part.greatest) - mean).max(mean - f64::from(part.least));
        }
        Ok(Self { means, mean_variance: variances / features as f64, extent })
    }
}

/// The coordinates in which points and centroids are compared: less the means of the features, and times a power of two
/// that makes them at most 2^14, so that neither their squares overflow nor, on CUDA, their half-precision parts.
#[derive(Clone, Debug)]
pub(super) struct Coordinates {
    pub(super) scale: f32,
    /// The means times the scale.
    pub(super) shift: Vec<f32>,
}

impl Coordinates {
    /// Coordinates for these points, and for initial centroids that may be beyond them.
    pub(super) fn new(features: &Features, init: Option<&[f32]>) -> Self {
        let means = &features.means;
        let init = init.unwrap_or_default().chunks_exact(means.len());
        let distances =
            init.flat_map(|centroid| centroid.iter().zip(means).map(|(&x, mean)| (f64::from(x) - mean).abs()));
        let extent = distances.fold(features.extent, f64::max);
        // A point that is all there is has no extent.
        let exponent = if extent > 0.0 { (13.0 - extent.log2().floor()).clamp(-126.0, 126.0) } else { 0.0 };
        let scale = exponent.exp2();
        Self { scale: scale as f32, shift: means.iter().map(|mean| (mean * scale) as f32).collect() }
    }

    /// The coordinates of a point or centroid.
    #[inline(always)]
    pub(super) fn map<'a>(&'a self, point: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        point.iter().zip(&self.shift).map(|(&x, shift)| x * self.scale - shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn means_and_variances_do_not_lose_digits_to_an_offset() {
        let mut random = Random::new(1);
        let points: Vec<f32> =
            (0..30_000).map(|index| (1e4 * (index % 3) as f64 + random.between(0.0, 1.0)) as f32).collect();
        let features = Features::new(&points, 3, &RunContext::detached()).unwrap();
        let mut variance = 0.0;
        for (feature, mean) in features.means.iter().enumerate() {
            let column = || points.iter().skip(feature).step_by(3).map(|&x| f64::from(x));
            let expected = column().sum::<f64>() / 1e4;
            assert!((mean - expected).abs() < 1e-11 * (1.0 + expected), "{mean} {expected}");
            variance += column().map(|x| (x - expected).powi(2)).sum::<f64>() / 3e4;
            assert!(column().all(|x| (x - mean).abs() <= features.extent));
        }
        assert!((features.mean_variance - variance).abs() < 1e-10);
    }

    #[test]
    fn coordinates_are_in_range_for_any_points() {
        for unit in [1e-44_f32, 1e-30, 1.0, 1e30, 3e38] {
            let points = [0.3 * unit, -unit, unit, 0.5 * unit];
            let features = Features::new(&points, 2, &RunContext::detached()).unwrap();
            let coordinates = Coordinates::new(&features, Some(&[unit, -unit]));
            let mapped: Vec<f32> =
                points.chunks(2).flat_map(|point| coordinates.map(point).collect::<Vec<_>>()).collect();
            assert!(mapped.iter().all(|x| x.abs() <= 16_384.0), "{unit}: {mapped:?}");
            assert!(unit < 1e-40 || mapped.iter().any(|x| x.abs() > 1_024.0), "{unit}: {mapped:?}");
        }
        let one = Features::new(&[5.0], 1, &RunContext::detached()).unwrap();
        assert_eq!(Coordinates::new(&one, None).map(&[5.0]).collect::<Vec<_>>(), [0.0]);
    }
}
