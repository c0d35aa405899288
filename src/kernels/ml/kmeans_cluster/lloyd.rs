//! The iterations of Lloyd's algorithm, for the CPU and for CUDA.

use crate::service::{KernelError, RunContext};

/// The points, their labels and the centroids, in the memory of the host or of a device.
pub(super) trait Clusters {
    /// Assigns each point to its nearest centroid, and moves each centroid to the mean of its points.
    fn step(&mut self) -> Result<Step, KernelError>;

    /// Assigns each point to its nearest centroid.
    fn assign(&mut self) -> Result<(), KernelError>;
}

/// What an iteration changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Whether any label changed.
    pub(super) labels_changed: bool,
    /// The sum of the squared distances by which the centroids moved.
    pub(super) movement: f64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) iterations: u32,
    pub(super) converged: bool,
}

/// Iterates until no label changes, the centroids move by at most `threshold`, or there have been `max_iterations`. The
/// labels are then those of the centroids.
pub(super) fn iterate(
    clusters: &mut impl Clusters,
    max_iterations: u32,
    threshold: f64,
    context: &RunContext<'_>,
) -> Result<Outcome, KernelError> {
    context.set_steps(max_iterations.into());
    for iterations in 1..=max_iterations {
        let step = clusters.step()?;
        context.advance(1);
        if !step.labels_changed {
            return Ok(Outcome { iterations, converged: true });
        }
        if step.movement <= threshold {
            clusters.assign()?;
            return Ok(Outcome { iterations, converged: true });
        }
    }
    clusters.assign()?;
    Ok(Outcome { iterations: max_iterations, converged: false })
}

/// Returns the indices of the `count` largest distances above 0, the largest first, and of equal ones the lower index.
pub(super) fn farthest(distances: &[f64], count: usize) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..distances.len() as u32).filter(|&index| distances[index as usize] > 0.0).collect();
    let by_distance = |a: &u32, b: &u32| distances[*b as usize].total_cmp(&distances[*a as usize]).then(a.cmp(b));
    if count < indices.len() {
        indices.select_nth_unstable_by(count, by_distance);
        indices.truncate(count);
    }
    indices.sort_unstable_by(by_distance);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scripted {
        steps: Vec<Step>,
        assignments: u32,
    }

    impl Clusters for Scripted {
        fn step(&mut self) -> Result<Step, KernelError> {
            Ok(self.steps.remove(0))
        }

        fn assign(&mut self) -> Result<(), KernelError> {
            self.assignments += 1;
            Ok(())
        }
    }

    #[test]
    fn a_run_ends_with_labels_of_its_last_centroids() {
        let step = |labels_changed, movement| Step { labels_changed, movement };
        for (steps, iterations, converged, assignments) in [
            (vec![step(true, 5.0), step(false, 5.0)], 2, true, 0),
            (vec![step(true, 5.0), step(true, 1.0)], 2, true, 1),
            (vec![step(true, 5.0), step(true, 2.0), step(true, 1.5)], 3, false, 1),
        ] {
            let mut clusters = Scripted { steps, assignments: 0 };
            let outcome = iterate(&mut clusters, 3, 1.0, &RunContext::detached()).unwrap();
            assert_eq!(outcome, Outcome { iterations, converged });
            assert_eq!(clusters.assignments, assignments);
        }
    }

    #[test]
    fn the_farthest_points_come_in_order() {
        let distances = [1.0, 3.0, 0.0, 3.0, 2.0];
        assert_eq!(farthest(&distances, 3), [1, 3, 4]);
        assert_eq!(farthest(&distances, 5), [1, 3, 4, 0], "a point on its centroid is not moved");
        assert_eq!(farthest(&distances, 0), [0_u32; 0]);
    }
}
