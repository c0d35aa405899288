//! Initial centroids by the greedy variant of k-means++, on the CPU; and what the CUDA code shares with it.
//!
//! A pass computes, for each of a few candidates, the distance of each point to the nearest centroid if the candidate
//! becomes one, and the sum of these over each segment of the points. Then the candidate of the lowest total becomes a
//! centroid, and the next candidates are drawn with probabilities in proportion to the distances.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::features::Coordinates;
use crate::random::SplitMix64;
use crate::service::{KernelError, RunContext};

/// Points of a segment.
const SEGMENT: usize = 1 << 10;
/// Multiplications between two looks at the context: well below a millisecond.
const MULTIPLICATIONS_PER_CHECK: usize = 1 << 22;
/// The numbers of candidates that there is device code for; `kmeans_cluster.cu` has the same.
const NUMBERS_OF_CANDIDATES: [usize; 3] = [4, 8, 16];

/// Returns the number of points that are tried for each centroid: at least 2 + ln k up to a million clusters.
pub(super) fn num_candidates(k: u32) -> usize {
    let wanted = 2 + f64::from(k.max(1)).ln() as usize;
    NUMBERS_OF_CANDIDATES.into_iter().find(|&number| number >= wanted).unwrap_or(16)
}

/// The random numbers of a run, which are the same on the CPU and on CUDA.
#[derive(Debug)]
pub(super) struct Draws(SplitMix64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Draws a point.
    pub(super) fn point(&mut self, num_points: usize) -> u32 {
        self.0.up_to(num_points as u64 - 1) as u32
    }

    /// Draws a number from 0 to 1.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Bytes that a run of the CPU code takes.
pub(super) fn scratch_bytes(points: u64, features: u64, k: u32) -> u64 {
    let candidates = num_candidates(k) as u64;
    let segments = points / SEGMENT as u64 + 1;
    let of_segment = (2 * candidates * (SEGMENT as u64 * 4 + 8)).saturating_mul(segments);
    of_segment.saturating_add(candidates.saturating_mul(features).saturating_mul(4)).saturating_add(4 * u64::from(k))
}

/// Chooses `k` of the points.
pub(super) fn choose(
    points: &[f32],
    coordinates: &Coordinates,
    k: u32,
    seed: u64,
    context: &RunContext<'_>,
) -> Result<Vec<u32>, KernelError> {
    let num_points = points.len() / coordinates.shift.len();
    let mut draws = Draws::new(seed);
    let mut chosen = vec![draws.point(num_points)];
    let [mut distances, mut next] = [0, 1].map(|_| Distances::new(num_points, num_candidates(k)));
    let mut best = 0;
    distances.compute(points, coordinates, &chosen, None, context)?;
    while chosen.len() < k as usize {
        let total = distances.total(best);
        let candidates: Vec<u32> =
            (0..num_candidates(k)).map(|_| distances.find(best, draws.uniform() * total)).collect();
        next.compute(points, coordinates, &candidates, Some((&distances, best)), context)?;
        best = next.best();
        chosen.push(candidates[best]);
        std::mem::swap(&mut distances, &mut next);
    }
    Ok(chosen)
}

/// For each candidate the distance of each point to the nearest centroid if the candidate becomes one.
struct Distances {
    candidates: usize,
    /// By segment, then by candidate, then by point.
    squared: Vec<f32>,
    /// The sums of a segment's distances, by segment and then by candidate.
    sums: Vec<f64>,
}

impl Distances {
    fn new(num_points: usize, candidates: usize) -> Self {
        let segments = num_points.div_ceil(SEGMENT);
        Self { candidates, squared: vec![0.0; segments * candidates * SEGMENT], sums: vec![0.0; segments * candidates] }
    }

    /// The total of a candidate.
    fn total(&self, candidate: usize) -> f64 {
        self.sums.iter().skip(candidate).step_by(self.candidates).sum()
    }

    /// The candidate of the lowest total, of equal ones the first.
    fn best(&self) -> usize {
        let totals: Vec<f64> = (0..self.candidates).map(|candidate| self.total(candidate)).collect();
        (1..self.candidates).fold(0, |best, other| if totals[other] < totals[best] { other } else { best })
    }

    /// A candidate's distances of a segment.
    fn segment(&self, segment: usize, candidate: usize) -> &[f32] {
        &self.squared[(segment * self.candidates + candidate) * SEGMENT..][..SEGMENT]
    }

    /// The first point at which the sum of a candidate's distances up to it is at least `target`. Where rounding leaves
    /// the sum below that, it is the last point with a distance.
    fn find(&self, candidate: usize, target: f64) -> u32 {
        let (mut before, mut segment, mut before_segment) = (0.0, 0, 0.0);
        for (index, sums) in self.sums.chunks(self.candidates).enumerate() {
            if sums[candidate] > 0.0 {
                (segment, before_segment) = (index, before);
            }
            before += sums[candidate];
            if before >= target {
                break;
            }
        }
        let (mut before, mut found) = (before_segment, 0);
        for (index, &distance) in self.segment(segment, candidate).iter().enumerate() {
            if distance > 0.0 {
                found = index;
            }
            before += f64::from(distance);
            if before >= target {
                break;
            }
        }
        (segment * SEGMENT + found) as u32
    }

    /// Computes the distances to these candidates; `nearest` are the distances to the nearest centroid so far.
    fn compute(
        &mut self,
        points: &[f32],
        coordinates: &Coordinates,
        candidates: &[u32],
        nearest: Option<(&Self, usize)>,
        context: &RunContext<'_>,
    ) -> Result<(), KernelError> {
        let features = coordinates.shift.len();
        let point = |index: u32| &points[index as usize * features..][..features];
        let candidates: Vec<f32> = candidates.iter().flat_map(|&index| coordinates.map(point(index))).collect();
        let arch = Arch::new();
        let points_per_check = (MULTIPLICATIONS_PER_CHECK / candidates.len()).clamp(1, SEGMENT);
        let segments =
            points.par_chunks(SEGMENT * features).zip(self.squared.par_chunks_mut(self.candidates * SEGMENT));
        let segments = segments.zip(self.sums.par_chunks_mut(self.candidates)).enumerate();
        segments.try_for_each(|(segment, ((points, squared), sums))| {
            let mut mapped = vec![0.0; features];
            for (index, point) in points.chunks_exact(features).enumerate() {
                if index % points_per_check == 0 {
                    context.check()?;
                }
                let before = nearest.map_or(f32::INFINITY, |(distances, best)| distances.segment(segment, best)[index]);
                let squared = squared[index..].iter_mut().step_by(SEGMENT);
                arch.dispatch(ToCandidates {
                    point,
                    coordinates,
                    mapped: &mut mapped,
                    candidates: &candidates,
                    before,
                    squared,
                });
            }
            for (squared, sum) in squared.chunks(SEGMENT).zip(sums) {
                *sum = squared.iter().map(|&distance| f64::from(distance)).sum();
            }
            Ok(())
        })
    }
}

/// The distances of a point to candidates, or `before` where that is lower.
struct ToCandidates<'a, D> {
    point: &'a [f32],
    coordinates: &'a Coordinates,
    mapped: &'a mut [f32],
    candidates: &'a [f32],
    before: f32,
    squared: D,
}

impl<'a, D: Iterator<Item = &'a mut f32>> WithSimd for ToCandidates<'_, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (to, x) in self.mapped.iter_mut().zip(self.coordinates.map(self.point)) {
            *to = x;
        }
        let (point, rest) = S::as_simd_f32s(self.mapped);
        for (candidate, squared) in self.candidates.chunks_exact(self.mapped.len()).zip(self.squared) {
            let (candidate, candidate_rest) = S::as_simd_f32s(candidate);
            let mut sum = simd.splat_f32s(0.0);
            for (&a, &b) in point.iter().zip(candidate) {
                let difference = simd.sub_f32s(a, b);
                sum = simd.mul_add_f32s(difference, difference, sum);
            }
            if !rest.is_empty() {
                let (a, b) = (simd.partial_load_f32s(rest), simd.partial_load_f32s(candidate_rest));
                let difference = simd.sub_f32s(a, b);
                sum = simd.mul_add_f32s(difference, difference, sum);
            }
            *squared = simd.reduce_sum_f32s(sum).min(self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    fn unit_coordinates(features: usize) -> Coordinates {
        Coordinates { scale: 1.0, shift: vec![0.0; features] }
    }

    #[test]
    fn there_are_at_least_as_many_candidates_as_in_scikit_learn() {
        for k in [1, 2, 7, 8, 20, 54, 55, 403, 1_096, 1_000_000] {
            assert!(num_candidates(k) >= 2 + f64::from(k).ln() as usize, "{k}");
        }
        assert_eq!([1, 7, 1_024, u32::MAX].map(num_candidates), [4, 4, 8, 16]);
    }

    #[test]
    fn each_of_some_distant_groups_gets_a_centroid() {
        let mut random = Random::new(5);
        let (groups, size, features) = (20, 150, 3);
        let points: Vec<f32> = (0..groups * size)
            .flat_map(|point| [point % groups, point % groups * point % groups, 0])
            .map(|corner| (100.0 * corner as f64 + random.between(0.0, 1.0)) as f32)
            .collect();
        for seed in 0..10 {
            let chosen =
                choose(&points, &unit_coordinates(features), groups as u32, seed, &RunContext::detached()).unwrap();
            let mut found: Vec<usize> = chosen.iter().map(|&point| point as usize % groups).collect();
            found.sort_unstable();
            assert_eq!(found, (0..groups).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn equal_points_are_chosen_once_each_while_there_are_others() {
        let points: Vec<f32> = (0..5_000).map(|point| (point % 7) as f32).collect();
        for seed in 0..5 {
            let chosen = choose(&points, &unit_coordinates(1), 7, seed, &RunContext::detached()).unwrap();
            let mut values: Vec<usize> = chosen.iter().map(|&point| points[point as usize] as usize).collect();
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2, 3, 4, 5, 6], "seed {seed}");
            let more = choose(&points, &unit_coordinates(1), 9, seed, &RunContext::detached()).unwrap();
            assert_eq!(more.len(), 9);
        }
    }

    #[test]
    fn points_are_drawn_in_proportion_to_their_distances() {
        let mut distances = Distances::new(3_000, 1);
        distances.squared[10] = 1.0;
        distances.squared[2_000] = 3.0;
        distances.sums = vec![1.0, 3.0, 0.0];
        assert_eq!([0.5, 1.0, 1.5, 4.0, 4.5].map(|target| distances.find(0, target)), [10, 10, 2_000, 2_000, 2_000]);
        let mut draws = Draws::new(1);
        let later = (0..10_000).filter(|_| distances.find(0, draws.uniform() * 4.0) == 2_000).count();
        assert!((7_300..7_700).contains(&later), "{later}");
    }
}
