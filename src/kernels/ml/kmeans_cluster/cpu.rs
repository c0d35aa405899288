//! A run on the CPU, parallel over the worker pool.

use pulp::Arch;
use rayon::prelude::*;

use super::assign::Panels;
use super::features::{Coordinates, Features, points_of_task};
use super::lloyd::{Clusters, Step, farthest, iterate};
use super::{KMeansInput, KMeansOutput, seeding};
use crate::service::{Buffer, KernelError, RunContext};

/// Sums of a task that merges parts.
const SUMS_OF_TASK: usize = 1 << 12;
/// The most parts of the points whose sums are kept at a time.
const MAX_PARTS: u64 = 64;
/// The least points of such a part.
const MIN_PART: u64 = 1 << 10;

/// Returns how many parts the points are cut into for the sums of the clusters. It depends on the input alone, and the
/// sums take no more memory than the points.
fn num_parts(points: u64, k: u64) -> u64 {
    (points / (2 * k.max(1))).min(points / MIN_PART).clamp(1, MAX_PARTS)
}

/// Bytes that a run takes beside its input and output.
pub(super) fn scratch_bytes(input: &KMeansInput) -> u64 {
    let (points, k, features) = (input.num_points() as u64, input.claimed_centroids(), u64::from(input.n_features));
    let sums = k.saturating_mul(features.saturating_mul(8).saturating_add(8)).saturating_mul(num_parts(points, k) + 1);
    let tasks = points / points_of_task(input.features()) as u64 + 2;
    let of_features = features.saturating_mul(24).saturating_mul(tasks);
    let seeding = if input.init.is_some() { 0 } else { seeding::scratch_bytes(points, features, input.k) };
    // Distances of all points, where a cluster is empty; two arrays of centroids; blocks of points of each thread.
    sums.saturating_add(of_features.saturating_mul(2))
        .saturating_add(seeding)
        .saturating_add(points.saturating_mul(12))
        .saturating_add(Panels::bytes(k, features).saturating_mul(2))
        .saturating_add(features.saturating_mul(256 * rayon::current_num_threads() as u64))
}

/// Runs the kernel.
pub(super) fn run(input: &KMeansInput, context: &RunContext<'_>) -> Result<KMeansOutput, KernelError> {
    let (points, width) = (&input.data[..], input.features());
    let features = Features::new(points, width, context)?;
    let coordinates = Coordinates::new(&features, input.init.as_deref());
    let centroids = match &input.init {
        Some(init) => init.to_vec(),
        None => {
            let chosen = seeding::choose(points, &coordinates, input.k, input.seed, context)?;
            chosen.iter().flat_map(|&point| &points[point as usize * width..][..width]).copied().collect()
        }
    };
    let mut labels = Buffer::zeroed(input.num_points());
    labels.fill(u32::MAX);
    let mut clusters = HostClusters { points, features: width, coordinates, centroids, labels, context };
    let threshold = input.tolerance * features.mean_variance;
    let outcome = iterate(&mut clusters, input.max_iterations, threshold, context)?;
    let inertia = clusters.distances()?.into_iter().map(|(sum, _)| sum).sum();
    let HostClusters { labels, centroids, .. } = clusters;
    let (iterations, converged) = (outcome.iterations, outcome.converged);
    Ok(KMeansOutput { labels, centroids: centroids.into(), inertia, iterations, converged })
}

/// The points, their labels and the centroids.
struct HostClusters<'a> {
    points: &'a [f32],
    features: usize,
    coordinates: Coordinates,
    centroids: Vec<f32>,
    labels: Buffer<u32>,
    context: &'a RunContext<'a>,
}

/// The sums of the coordinates of the points of each cluster, and their numbers.
#[derive(Clone)]
struct Sums {
    coordinates: Vec<f64>,
    sizes: Vec<u64>,
}

impl Clusters for HostClusters<'_> {
    fn step(&mut self) -> Result<Step, KernelError> {
        let labels_changed = self.assign_points()?;
        let mut sums = self.sums()?;
        self.fill_empty(&mut sums)?;
        let mut movement = 0.0;
        let clusters = self.centroids.chunks_exact_mut(self.features).zip(sums.coordinates.chunks_exact(self.features));
        for ((centroid, sums), &size) in clusters.zip(&sums.sizes).filter(|(_, size)| **size > 0) {
            for (centroid, sum) in centroid.iter_mut().zip(sums) {
                let mean = (sum / size as f64) as f32;
                movement += (f64::from(mean) - f64::from(*centroid)).powi(2);
                *centroid = mean;
            }
        }
        Ok(Step { labels_changed, movement })
    }

    fn assign(&mut self) -> Result<(), KernelError> {
        self.assign_points().map(drop)
    }
}

impl HostClusters<'_> {
    fn assign_points(&mut self) -> Result<bool, KernelError> {
        let panels = Panels::new(&self.centroids, &self.coordinates);
        panels.assign(self.points, &self.coordinates, &mut self.labels, self.context)
    }

    /// Adds up the points of each cluster: those of each part of the points, and then the parts in order.
    fn sums(&self) -> Result<Sums, KernelError> {
        let len = self.centroids.len();
        let k = len / self.features;
        let points_of_part = self.labels.len().div_ceil(num_parts(self.labels.len() as u64, k as u64) as usize);
        let parts = self.points.par_chunks(points_of_part * self.features).zip(self.labels.par_chunks(points_of_part));
        let of_part = |(points, labels): (&[f32], &[u32])| {
            let mut sums = Sums { coordinates: vec![0.0; len], sizes: vec![0; k] };
            let task = points_of_task(self.features);
            for (points, labels) in points.chunks(task * self.features).zip(labels.chunks(task)) {
                self.context.check()?;
                Arch::new().dispatch(
                    #[inline(always)]
                    || add_points(points, labels, self.features, &mut sums),
                );
            }
            Ok(sums)
        };
        let mut parts: Vec<Sums> = parts.map(of_part).collect::<Result<_, KernelError>>()?;
        let mut sums = parts.swap_remove(0);
        // The last part came first, which is an order as well.
        let merge = |(at, sums): (usize, &mut [f64])| {
            for part in &parts {
                sums.iter_mut().zip(&part.coordinates[at * SUMS_OF_TASK..]).for_each(|(sum, other)| *sum += other);
            }
        };
        sums.coordinates.par_chunks_mut(SUMS_OF_TASK).enumerate().for_each(merge);
        for part in &parts {
            sums.sizes.iter_mut().zip(&part.sizes).for_each(|(sum, other)| *sum += other);
        }
        Ok(sums)
    }

    /// Moves the points that are farthest from their centroids into the empty clusters.
    fn fill_empty(&self, sums: &mut Sums) -> Result<(), KernelError> {
        let empty: Vec<usize> = (0..sums.sizes.len()).filter(|&cluster| sums.sizes[cluster] == 0).collect();
        if empty.is_empty() {
            return Ok(());
        }
        let distances: Vec<f64> = self.distances()?.into_iter().flat_map(|(_, distances)| distances).collect();
        for (to, point) in empty.iter().copied().zip(farthest(&distances, empty.len())) {
            let from = self.labels[point as usize] as usize;
            for (feature, &x) in self.points[point as usize * self.features..][..self.features].iter().enumerate() {
                sums.coordinates[from * self.features + feature] -= f64::from(x);
                sums.coordinates[to * self.features + feature] = x.into();
            }
            sums.sizes[from] -= 1;
            sums.sizes[to] = 1;
        }
        Ok(())
    }

    /// Computes the squared distance of each point to its centroid, and the sum of those of each task.
    fn distances(&self) -> Result<Vec<(f64, Vec<f64>)>, KernelError> {
        let of_task = |(points, labels): (&[f32], &[u32])| {
            self.context.check()?;
            let distance = |(point, &label): (&[f32], &u32)| -> f64 {
                let centroid = &self.centroids[label as usize * self.features..][..self.features];
                point.iter().zip(centroid).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
            };
            let distances: Vec<f64> = points.chunks_exact(self.features).zip(labels).map(distance).collect();
            Ok((distances.iter().sum(), distances))
        };
        let task = points_of_task(self.features);
        self.points.par_chunks(task * self.features).zip(self.labels.par_chunks(task)).map(of_task).collect()
    }
}

#[inline(always)]
fn add_points(points: &[f32], labels: &[u32], features: usize, sums: &mut Sums) {
    for (point, &label) in points.chunks_exact(features).zip(labels) {
        let to = &mut sums.coordinates[label as usize * features..][..features];
        to.iter_mut().zip(point).for_each(|(sum, &x)| *sum += f64::from(x));
        sums.sizes[label as usize] += 1;
    }
}
