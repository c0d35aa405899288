//! `ml/kmeans-cluster`: k-means clustering by Lloyd's algorithm, seeded by k-means++.
//!
//! | field | type | |
//! |---|---|---|
//! | `data` | `f32`, `[n * n_features]` | the points, one after the other; n from 1 to 2^32 - 1 |
//! | `n_features` | integer, at least 1 | coordinates of a point |
//! | `k` | integer, 1 to n | the number of clusters |
//! | `max_iterations` | integer, default 300, at least 1 | iterations at most |
//! | `tolerance` | number, default 1e-4, at least 0 | relative to the mean variance of the features: see below |
//! | `init` | `f32`, `[k * n_features]`, optional | the initial centroids; chosen by k-means++ where it is left out |
//! | `seed` | integer, default 0 | of the random numbers of k-means++ |
//! | out: `labels` | `u32`, `[n]` | the cluster of each point: the nearest centroid, the lowest of equally near ones |
//! | out: `centroids` | `f32`, `[k * n_features]` | |
//! | out: `inertia` | `f64` | the sum of the squared distances of the points to their centroids |
//! | out: `iterations` | `u32` | |
//! | out: `converged` | bool | whether the run ended before `max_iterations` were used up |
//!
//! An iteration assigns each point to its nearest centroid and moves each centroid to the mean of its points (Lloyd,
//! *Least squares quantization in PCM*, 1982). The run has converged when no label changes, or when the sum of the
//! squared distances by which the centroids moved is at most `tolerance` times the mean of the variances of the
//! features, as in scikit-learn. At the end the labels are those of the centroids that are returned.
//!
//! A cluster without points gets the point that is farthest from its centroid, taken away from that point's cluster; of
//! several empty clusters, the first gets the farthest point, and so on. This is what scikit-learn does. Where the
//! points have fewer than k different values, clusters stay empty and keep their centroids.
//!
//! k-means++ chooses the first centroid uniformly, and each further one with a probability in proportion to the squared
//! distance of a point to the nearest centroid so far (Arthur and Vassilvitskii, *k-means++: the advantages of careful
//! seeding*, 2007). The greedy variant draws several points, at least 2 + ln k, and takes the one that lowers the sum
//! of the squared distances most.
//!
//! Distances are compared as `x c - |c|^2 / 2` in single precision, after shifting the points by their mean, so that no
//! digits are lost to a common offset; on CUDA by tensor cores from sums of two half-precision numbers, with the same
//! accuracy. So a label may be that of another centroid only where two distances agree to about 1e-6 of the largest
//! squared distance from the mean. Initial centroids that are more than 10^4 times as far from the mean as any point
//! lose that accuracy on CUDA. Means and inertia are computed in double precision. All sums have an order that depends
//! on the input alone: a run gives the same bits on any number of threads, and on the same device.
//!
//! An iteration takes `2 n k n_features` operations, and the seeding `2 n k n_features (2 + ln k)`.
//!
//! Errors name the field, and the element of an array that is not a finite number.

mod assign;
mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod features;
mod lloyd;
mod seeding;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_finite;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KMeansCluster;

/// The input of `ml/kmeans-cluster`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "data": [1.0, 1.0, 1.5, 2.0, 8.0, 8.0, 9.0, 9.5], "n_features": 2, "k": 2 },
    { "data": [0.5, 0.25, 7.5, 8.0], "n_features": 1, "k": 2, "init": [0.0, 1.0], "max_iterations": 10 },
]))]
pub struct KMeansInput {
    /// The coordinates of the points, one point after the other.
    pub data: Buffer<f32>,
    /// Coordinates of a point.
    pub n_features: u32,
    /// The number of clusters.
    pub k: u32,
    /// Iterations at most.
    #[serde(default = "default_iterations")]
    pub max_iterations: u32,
    /// The movement of the centroids at which the run has converged, relative to the mean variance of the features.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// The initial centroids, one after the other; chosen by k-means++ where it is left out.
    #[serde(default)]
    pub init: Option<Buffer<f32>>,
    /// The seed of the random numbers of k-means++.
    #[serde(default)]
    pub seed: u64,
}

fn default_iterations() -> u32 {
    300
}

fn default_tolerance() -> f64 {
    1e-4
}

/// The output of `ml/kmeans-cluster`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KMeansOutput {
    /// The cluster of each point.
    pub labels: Buffer<u32>,
    /// The centroids, one after the other.
    pub centroids: Buffer<f32>,
    /// The sum of the squared distances of the points to their centroids.
    pub inertia: f64,
    /// The number of iterations.
    pub iterations: u32,
    /// Whether the run converged within `max_iterations`.
    pub converged: bool,
}

impl KMeansInput {
    /// Points of this many features, `k` clusters, and defaults for the rest.
    pub fn new(data: impl Into<Buffer<f32>>, n_features: u32, k: u32) -> Self {
        Self {
            data: data.into(),
            n_features,
            k,
            max_iterations: default_iterations(),
            tolerance: default_tolerance(),
            init: None,
            seed: 0,
        }
    }

    /// Returns the number of points; of an input that is not valid, the number of whole ones.
    pub fn num_points(&self) -> usize {
        self.data.len() / self.features().max(1)
    }

    fn features(&self) -> usize {
        self.n_features as usize
    }

    /// The number of centroids as the input claims it, but no more than there are points.
    fn claimed_centroids(&self) -> u64 {
        u64::from(self.k).min(self.num_points() as u64)
    }

    fn validate(&self) -> Result<(), InvalidInput> {
        let invalid = |field: &str, reason: String| Err(InvalidInput::new(field, reason));
        let (len, features) = (self.data.len(), self.features());
        if features == 0 {
            return invalid("n_features", "0 where at least 1 is expected".to_owned());
        }
        if len == 0 || !len.is_multiple_of(features) {
            let reason = format!("{len} numbers where a multiple of n_features, {features}, is expected");
            return invalid("data", reason);
        }
        let points = self.num_points();
        if u32::try_from(points).is_err() {
            return invalid("data", format!("{points} points where fewer than 2^32 are expected"));
        }
        if !(1..=points).contains(&(self.k as usize)) {
            return invalid("k", format!("{} where 1 to {points}, the number of points, is expected", self.k));
        }
        if self.max_iterations == 0 {
            return invalid("max_iterations", "0 where at least 1 is expected".to_owned());
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            let reason = format!("{} where a finite number of at least 0 is expected", self.tolerance);
            return invalid("tolerance", reason);
        }
        if let Some(init) = &self.init {
            let expected = self.k as usize * features;
            if init.len() != expected {
                let reason = format!("{} numbers where {expected}, k times n_features, are expected", init.len());
                return invalid("init", reason);
            }
            check_finite("init", init)?;
        }
        check_finite("data", &self.data)
    }
}

impl Kernel for KMeansCluster {
    type Input = KMeansInput;
    type Output = KMeansOutput;

    fn info(&self) -> KernelInfo {
        let description = "k-means clustering by Lloyd's algorithm, seeded by k-means++.";
        KernelInfo::new("ml/kmeans-cluster", "1.0.0", description).alias("ml/kmeans").cuda().pure()
    }

    fn validate(&self, input: &KMeansInput) -> Result<(), InvalidInput> {
        input.validate()
    }

    fn cost(&self, input: &KMeansInput) -> Cost {
        /// Iterations of a usual run.
        const USUAL_ITERATIONS: u32 = 25;
        let (numbers, k) = (input.data.len() as u64, input.claimed_centroids());
        let iterations = u64::from(input.max_iterations.min(USUAL_ITERATIONS));
        let candidates = if input.init.is_some() { 0 } else { seeding::num_candidates(input.k) as u64 };
        let seeding_passes = if input.init.is_some() { 0 } else { k };
        Cost {
            bytes: numbers.saturating_mul(4).saturating_mul(2 * iterations + seeding_passes),
            operations: numbers.saturating_mul(k).saturating_mul(2).saturating_mul(iterations + candidates),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &KMeansInput) -> Option<Footprint> {
        let centroids = input.claimed_centroids().saturating_mul(input.n_features.into());
        let output = Footprint::of_array::<u32>(input.num_points() as u64)
            .saturating_add(Footprint::of_array::<f32>(centroids))
            .saturating_add(13);
        Some(Footprint { output, scratch: cpu::scratch_bytes(input) })
    }

    fn run_cpu(&self, input: &KMeansInput, context: &RunContext<'_>) -> Result<KMeansOutput, KernelError> {
        cpu::run(input, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &KMeansInput, cuda: &mut LaunchContext<'_>) -> Result<KMeansOutput, KernelError> {
        cuda::run(input, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &KMeansInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &KMeansInput) -> u64 {
    0
}
