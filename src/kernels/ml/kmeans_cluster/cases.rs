//! The test's inputs: groups of points around initial centroids, which one iteration finds.

use super::{KMeansCluster, KMeansInput, KMeansOutput};
use crate::kernels::authoring::{Cases, Expected, Random};

/// The most points and clusters of an input.
const MAX_POINTS: usize = 5_000;
const MAX_CLUSTERS: u64 = 100;

impl Cases for KMeansCluster {
    fn case(&self, size: usize, random: &mut Random) -> Option<KMeansInput> {
        if size == 0 {
            return None;
        }
        let points = size.min(MAX_POINTS);
        let (features, k) = (1 + random.below(40) as usize, 1 + random.below(MAX_CLUSTERS.min(points as u64)) as usize);
        // An offset that is large against the distances.
        let offset = random.between(-1e3, 1e3);
        let center = |cluster: usize, feature: usize| offset + if feature == 0 { 8.0 * cluster as f64 } else { 0.0 };
        let mut near_centers = |rows: usize| -> Vec<f32> {
            let coordinates = (0..rows * features).map(|index| (index / features % k, index % features));
            coordinates
                .map(|(cluster, feature)| (center(cluster, feature) + random.between(-1.0, 1.0)) as f32)
                .collect()
        };
        let (init, data) = (near_centers(k), near_centers(points));
        let input = KMeansInput::new(data, features as u32, k as u32);
        Some(KMeansInput { init: Some(init.into()), tolerance: 0.0, ..input })
    }

    fn share(&self, _: &mut KMeansInput, _: &KMeansInput) {}

    fn put_nan(&self, input: &mut KMeansInput, row: usize) {
        let row = row % input.num_points();
        input.data[row * input.n_features as usize] = f32::NAN;
    }

    /// Lloyd's algorithm as it is defined, in double precision.
    fn reference(&self, input: &KMeansInput) -> Vec<Expected> {
        let features = input.n_features as usize;
        let points: Vec<Vec<f64>> = rows(&input.data, features);
        let mut centroids: Vec<Vec<f64>> = rows(input.init.as_deref().unwrap_or_default(), features);
        let distance = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
        let mut labels = vec![usize::MAX; points.len()];
        let mut iterations = 0.0;
        loop {
            iterations += 1.0;
            let nearest = |point: &Vec<f64>| {
                let distances = centroids.iter().map(|centroid| distance(point, centroid)).enumerate();
                distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(cluster, _)| cluster)
            };
            let next: Vec<usize> = points.iter().map(nearest).collect();
            let is_same = next == labels;
            labels = next;
            if is_same {
                break;
            }
            for (cluster, centroid) in centroids.iter_mut().enumerate() {
                let of_cluster = || points.iter().zip(&labels).filter(|(_, label)| **label == cluster);
                let size = of_cluster().count() as f64;
                for (feature, centroid) in centroid.iter_mut().enumerate() {
                    *centroid = of_cluster().map(|(point, _)| point[feature]).sum::<f64>() / size;
                }
            }
        }
        let inertia: f64 = points.iter().zip(&labels).map(|(point, &label)| distance(point, &centroids[label])).sum();
        // They are rounded to single precision.
        let rounded = |value: f64| (value, 1e-7 * value.abs());
        vec![
            Expected { name: "labels", values: labels.iter().map(|&label| (label as f64, 0.0)).collect() },
            Expected { name: "centroids", values: centroids.concat().into_iter().map(rounded).collect() },
            Expected { name: "inertia", values: vec![(inertia, 1e-9 * inertia + 1e-7 * points.len() as f64)] },
            Expected { name: "iterations", values: vec![(iterations, 0.0)] },
        ]
    }

    fn values(&self, output: &KMeansOutput) -> Vec<Vec<f64>> {
        vec![
            output.labels.iter().map(|&label| label.into()).collect(),
            output.centroids.iter().map(|&number| number.into()).collect(),
            vec![output.inertia],
            vec![output.iterations.into()],
        ]
    }
}

fn rows(numbers: &[f32], features: usize) -> Vec<Vec<f64>> {
    numbers.chunks(features).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}
