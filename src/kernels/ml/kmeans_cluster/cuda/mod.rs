//! The host side on CUDA. `kmeans_cluster.cu` describes what its entries do.

mod assign;
mod points;
mod seeding;

use self::assign::Assignment;
use self::points::Points;
use super::features::Coordinates;
use super::lloyd::{Clusters, Step, farthest, iterate};
use super::{KMeansInput, KMeansOutput};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::service::{KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("ml/kmeans-cluster"));

const THREADS: u32 = 256;
/// Threads of the entries that run as one block.
const THREADS_OF_ONE_BLOCK: u32 = 1024;
/// Points whose sum a block computes, and threads of the block, as in `centroids.cuh`.
const PIECE: usize = 256;
const PIECE_THREADS: u32 = 128;
/// Counts that a block of the prefix sum scans, as in `scan.cuh`.
const SCAN_TILE: usize = 4096;
/// A null pointer, for an argument that an entry does without.
const NULL: u64 = 0;

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &KMeansInput) -> u64 {
    let (points, features, k) = (input.num_points() as u64, u64::from(input.n_features), input.claimed_centroids());
    let numbers = input.data.len() as u64;
    let centroids = k.saturating_mul(features);
    // Sums of pieces and of clusters.
    let sums = (points / PIECE as u64 + 2 * k).saturating_mul(features).saturating_mul(8);
    // Labels, their order, distances where a cluster is empty; and counts by label and part.
    let of_points = points.saturating_mul(4 + 4 + 8).saturating_add((points + 2 * k).saturating_mul(5));
    let seeding = if input.init.is_some() { 0 } else { seeding::device_memory(points, input.k) };
    (numbers * 4)
        .saturating_add(assign::device_memory(points, k, features))
        .saturating_add(points::device_memory(features))
        .saturating_add(sums)
        .saturating_add(centroids.saturating_mul(4))
        .saturating_add(of_points)
        .saturating_add(seeding)
        .saturating_add(k.saturating_mul(40))
}

/// Runs the kernel.
pub(super) fn run(input: &KMeansInput, cuda: &mut LaunchContext<'_>) -> Result<KMeansOutput, KernelError> {
    let points = Points::new(input, cuda)?;
    let features = points.features(cuda)?;
    let coordinates = Coordinates::new(&features, input.init.as_deref());
    let shift = cuda.upload(&coordinates.shift)?;
    let centroids = match &input.init {
        // It is written, so it must not be the copy of an operand.
        Some(init) => cuda.upload(init)?,
        None => seeding::choose(&points, input, (coordinates.scale, &shift), cuda)?,
    };
    let assignment = Assignment::new(&points, input.k as usize, coordinates.scale, shift, cuda)?;
    let context = cuda.context();
    let mut clusters = DeviceClusters::new(points, assignment, centroids, cuda)?;
    clusters.split_centroids()?;
    let threshold = input.tolerance * features.mean_variance;
    let outcome = iterate(&mut clusters, input.max_iterations, threshold, context)?;
    let inertia = clusters.inertia()?;
    let DeviceClusters { labels, centroids, cuda, .. } = clusters;
    let (labels, centroids) = (cuda.download(&labels)?, cuda.download(&centroids)?);
    Ok(KMeansOutput { labels, centroids, inertia, iterations: outcome.iterations, converged: outcome.converged })
}

/// The points, their labels and the centroids, with what an iteration needs.
struct DeviceClusters<'c, 'l> {
    points: Points,
    assignment: Assignment,
    centroids: DeviceBuffer<f32>,
    labels: DeviceBuffer<u32>,
    sorting: Sorting,
    first_pieces: DeviceBuffer<u32>,
    piece_sums: DeviceBuffer<f64>,
    sums: DeviceBuffer<f64>,
    sizes: DeviceBuffer<u32>,
    /// The squared distance by which each centroid moved.
    movements: DeviceBuffer<f64>,
    /// The squared distance of each point to its centroid, once a cluster is empty.
    distances: Option<DeviceBuffer<f64>>,
    part_sums: DeviceBuffer<f64>,
    /// The `State` of `kmeans_cluster.cu`.
    state: DeviceBuffer<u32>,
    cuda: &'c mut LaunchContext<'l>,
}

/// The counting sort of the points by label.
struct Sorting {
    part_len: usize,
    parts: usize,
    places: DeviceBuffer<u32>,
    /// A word for each tile of the prefix sum, and the number of the next tile.
    tiles: DeviceBuffer<u64>,
    order: DeviceBuffer<u32>,
}

impl Sorting {
    fn new(count: usize, k: usize, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        // So that there are not many more counts than points.
        let part_len = k.next_multiple_of(32).max(1024);
        let parts = count.div_ceil(part_len);
        let places = cuda.alloc(k * parts)?;
        let tiles = cuda.alloc((k * parts).div_ceil(SCAN_TILE) + 1)?;
        Ok(Self { part_len, parts, places, tiles, order: cuda.alloc(count)? })
    }
}

impl Clusters for DeviceClusters<'_, '_> {
    fn step(&mut self) -> Result<Step, KernelError> {
        self.assign_points()?;
        self.sort_points()?;
        self.sum_clusters()?;
        self.update_centroids(true)?;
        let (labels_changed, num_empty, mut movement) = self.download_state()?;
        if num_empty > 0 {
            self.fill_empty(num_empty as usize)?;
            self.update_centroids(false)?;
            movement = self.download_state()?.2;
        }
        Ok(Step { labels_changed: labels_changed > 0, movement })
    }

    fn assign(&mut self) -> Result<(), KernelError> {
        self.assign_points()
    }
}

impl<'c, 'l> DeviceClusters<'c, 'l> {
    fn new(
        points: Points,
        assignment: Assignment,
        centroids: DeviceBuffer<f32>,
        cuda: &'c mut LaunchContext<'l>,
    ) -> Result<Self, KernelError> {
        let (k, count, features) = (assignment.k, points.count, points.features);
        Ok(Self {
            centroids,
            // No label, so that the first iteration changes all.
            labels: cuda.upload(&vec![u32::MAX; count])?,
            sorting: Sorting::new(count, k, cuda)?,
            first_pieces: cuda.alloc(k + 1)?,
            piece_sums: cuda.alloc((count / PIECE + k) * features)?,
            sums: cuda.alloc(k * features)?,
            sizes: cuda.alloc(k)?,
            movements: cuda.alloc(k)?,
            distances: None,
            part_sums: cuda.alloc(points.parts)?,
            state: cuda.alloc(4)?,
            points,
            assignment,
            cuda,
        })
    }

    /// The number of clusters as the device code takes it.
    fn k(&self) -> u32 {
        self.assignment.k as u32
    }

    /// Assigns each point to its nearest centroid, and counts the labels that change in the state.
    fn assign_points(&mut self) -> Result<(), KernelError> {
        self.cuda.zero(&self.state)?;
        self.assignment.run(&self.points, &self.labels, &self.state.slice(..1), self.cuda)
    }

    /// Sorts the points by label.
    fn sort_points(&mut self) -> Result<(), KernelError> {
        let Sorting { part_len, parts, places, tiles, order } = &self.sorting;
        let (n, k) = (self.points.n(), self.k());
        let (part_len, num_parts) = (*part_len as u32, *parts as u32);
        let warps = Launch::elements(32 * parts, u32::MAX);
        self.cuda.zero(places)?;
        let args: [&dyn Arg; 6] = [&n, &k, &part_len, &num_parts, &self.labels, places];
        self.cuda.launch(&MODULE, "kmeans_count", warps, &args)?;
        self.cuda.zero(tiles)?;
        let (count, last) = (places.len() as u64, tiles.len() - 1);
        let args: [&dyn Arg; 4] = [&count, tiles, &tiles.slice(last..), places];
        self.cuda.launch(&MODULE, "kmeans_places", Launch::new(last as u32, THREADS), &args)?;
        let args: [&dyn Arg; 7] = [&n, &k, &part_len, &num_parts, &self.labels, places, order];
        self.cuda.launch(&MODULE, "kmeans_sort", warps, &args)
    }

    /// Adds up the points of each cluster, which have been sorted, and counts the empty clusters in the state.
    fn sum_clusters(&mut self) -> Result<(), KernelError> {
        let Sorting { parts, places, order, .. } = &self.sorting;
        let (d, k, parts) = (self.points.d(), self.k(), *parts as u32);
        let (first_pieces, piece_sums) = (&self.first_pieces, &self.piece_sums);
        let one_block = Launch::new(1, THREADS_OF_ONE_BLOCK);
        self.cuda.launch(&MODULE, "kmeans_pieces", one_block, &[&k, &parts, places, first_pieces])?;
        let max_pieces = self.points.count / PIECE + self.assignment.k;
        for (first, blocks) in self.points.launches(max_pieces, PIECE) {
            let elements = &self.points.elements;
            let args: [&dyn Arg; 9] = [&first, &d, &k, &parts, elements, places, order, first_pieces, piece_sums];
            self.cuda.launch(&MODULE, "kmeans_sum_pieces", Launch::new(blocks, PIECE_THREADS), &args)?;
        }
        let num_empty = self.state.slice(1..2);
        let args: [&dyn Arg; 8] = [&d, &parts, places, first_pieces, piece_sums, &self.sums, &self.sizes, &num_empty];
        self.cuda.launch(&MODULE, "kmeans_sum_clusters", Launch::new(k, THREADS), &args)
    }

    /// Moves the centroids to the means of their clusters, and adds up the movements in the state. `unless_empty`: only
    /// where no cluster is empty.
    fn update_centroids(&mut self, unless_empty: bool) -> Result<(), KernelError> {
        let condition: &dyn Arg = if unless_empty { &self.state } else { &NULL };
        self.assignment.update(
            &self.points,
            &self.centroids,
            &self.sums,
            &self.sizes,
            condition,
            &self.movements,
            self.cuda,
        )?;
        let args: [&dyn Arg; 3] = [&self.k(), &self.movements, &self.state];
        self.cuda.launch(&MODULE, "kmeans_finish", Launch::new(1, THREADS_OF_ONE_BLOCK), &args)
    }

    /// Prepares the initial centroids for an assignment.
    fn split_centroids(&mut self) -> Result<(), KernelError> {
        self.assignment.update(&self.points, &self.centroids, &NULL, &NULL, &NULL, &NULL, self.cuda)
    }

    /// Returns how many labels changed, how many clusters are empty, and how far the centroids moved.
    fn download_state(&mut self) -> Result<(u32, u32, f64), KernelError> {
        let state = self.cuda.download(&self.state)?;
        let movement = u64::from(state[2]) | u64::from(state[3]) << 32;
        Ok((state[0], state[1], f64::from_bits(movement)))
    }

    /// Moves the points that are farthest from their centroids into the empty clusters.
    fn fill_empty(&mut self, num_empty: usize) -> Result<(), KernelError> {
        let distances = match self.distances {
            Some(distances) => distances,
            None => *self.distances.insert(self.cuda.alloc(self.points.count)?),
        };
        self.compute_distances(&distances)?;
        let distances = self.cuda.download(&distances)?;
        let points = farthest(&distances, num_empty);
        let sizes = self.cuda.download(&self.sizes)?;
        let clusters: Vec<u32> = (0..self.k()).filter(|&cluster| sizes[cluster as usize] == 0).collect();
        let (count, d) = (points.len() as u32, self.points.d());
        let (clusters, points) = (self.cuda.upload(&clusters)?, self.cuda.upload(&points)?);
        let args: [&dyn Arg; 8] =
            [&count, &d, &clusters, &points, &self.labels, &self.points.elements, &self.sums, &self.sizes];
        self.cuda.launch(&MODULE, "kmeans_relocate", Launch::new(1, THREADS), &args)
    }

    /// Returns the sum of the squared distances of the points to their centroids.
    fn inertia(&mut self) -> Result<f64, KernelError> {
        self.compute_distances(&NULL)?;
        Ok(self.cuda.download(&self.part_sums)?.iter().sum())
    }

    /// Computes the squared distance of each point to its centroid, and the sums of those of each part of the points.
    fn compute_distances(&mut self, distances: &dyn Arg) -> Result<(), KernelError> {
        let (n, d, k, part_len) = (self.points.n(), self.points.d(), self.k(), self.points.part_len as u32);
        for (first, blocks) in self.points.launches(self.points.parts, self.points.part_len) {
            let (elements, centroids, labels) = (&self.points.elements, &self.centroids, &self.labels);
            let args: [&dyn Arg; 10] =
                [&n, &d, &k, &part_len, &first, elements, centroids, labels, distances, &self.part_sums];
            self.cuda.launch(&MODULE, "kmeans_inertia", Launch::new(blocks, THREADS), &args)?;
        }
        Ok(())
    }
}
