//! What the kernels that iterate `x <- f(A x)` share: when an iteration is the last, and what a run takes.

use super::input::GraphInput;
use crate::service::{Footprint, InvalidInput, KernelError};

/// Iterations to the default tolerance on a usual graph, for estimates of the cost.
const USUAL_ITERATIONS: u32 = 40;

/// When a power iteration stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    pub(super) max_iterations: u32,
    /// The sum of the changes of all values below which an iteration is the last.
    pub(super) tolerance: f64,
}

/// How a power iteration stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Convergence {
    pub(super) iterations: u32,
    /// The sum of the changes of all values in the last iteration.
    pub(super) difference: f64,
    pub(super) converged: bool,
}

impl Limits {
    /// Returns the limits of a graph of `num_nodes`, for a tolerance that is the mean change of a value.
    pub(super) fn new(max_iterations: u32, tolerance: f64, num_nodes: usize) -> Self {
        Self { max_iterations, tolerance: num_nodes as f64 * tolerance }
    }

    /// Checks the fields `max_iterations` and `tolerance`.
    ///
    /// # Errors
    /// The first of them that is wrong.
    pub(super) fn validate(max_iterations: u32, tolerance: f64) -> Result<(), InvalidInput> {
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(InvalidInput::new("tolerance", format!("{tolerance}, and it is finite and not negative")));
        }
        if max_iterations == 0 {
            return Err(InvalidInput::new("max_iterations", "0, and 1 is the least"));
        }
        Ok(())
    }

    /// Repeats `iterate`, which returns the sum of the changes of all values, until that is below the tolerance, is not
    /// a number, or there are no iterations left.
    ///
    /// # Errors
    /// Those of `iterate`.
    pub(super) fn repeat(
        self,
        mut iterate: impl FnMut() -> Result<f64, KernelError>,
    ) -> Result<Convergence, KernelError> {
        let (mut iterations, mut difference) = (0, f64::INFINITY);
        while !self.stops(iterations, difference) {
            difference = iterate()?;
            iterations += 1;
        }
        Ok(self.convergence(iterations, difference))
    }

    /// Whether an iteration stops after so many, of which the last made this difference.
    pub(super) fn stops(self, iterations: u32, difference: f64) -> bool {
        !(iterations < self.max_iterations && difference >= self.tolerance)
    }

    /// Returns how an iteration with these limits stopped.
    pub(super) fn convergence(self, iterations: u32, difference: f64) -> Convergence {
        Convergence { iterations, difference, converged: difference < self.tolerance }
    }
}

/// Repeats one iteration for several limits, each of which stops where it would alone. Returns the values at which each
/// stopped, and how.
///
/// `advance` goes on with the iteration up to some limits, which count from where it is, and returns how it stopped and its
/// values there.
///
/// # Errors
/// Those of `advance`.
pub(super) fn repeat_for_all<T: Clone>(
    all: &[Limits],
    mut advance: impl FnMut(Limits) -> Result<(Convergence, T), KernelError>,
) -> Result<Vec<(T, Convergence)>, KernelError> {
    let mut stopped: Vec<Option<(T, Convergence)>> = vec![None; all.len()];
    let mut iterations = 0;
    loop {
        // Up to the first that stops.
        let pending = all.iter().zip(&stopped).filter(|(_, stopped)| stopped.is_none()).map(|(limits, _)| *limits);
        let first = pending.reduce(|a, b| Limits {
            max_iterations: a.max_iterations.min(b.max_iterations),
            tolerance: a.tolerance.max(b.tolerance),
        });
        let Some(Limits { max_iterations, tolerance }) = first else { break };
        let (advanced, values) = advance(Limits { max_iterations: max_iterations - iterations, tolerance })?;
        iterations += advanced.iterations;
        let pending = all.iter().zip(&mut stopped).filter(|(_, stopped)| stopped.is_none());
        for (limits, stopped) in pending.filter(|(limits, _)| limits.stops(iterations, advanced.difference)) {
            *stopped = Some((values.clone(), limits.convergence(iterations, advanced.difference)));
        }
    }
    Ok(stopped.into_iter().flatten().collect())
}

/// Returns the arithmetic of a run with this many vectors.
pub(super) fn operations(graph: &GraphInput<'_>, vectors: u64, max_iterations: u32) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    let iterations = u64::from(max_iterations.min(USUAL_ITERATIONS));
    let steps = nodes.saturating_add(arcs).saturating_mul(vectors).saturating_mul(iterations);
    steps.saturating_mul(2).saturating_add(2_000)
}

/// Returns the host memory of a run with one output vector: the graph, its predecessors, and two vectors of
/// contributions. The output has three numbers more.
pub(super) fn footprint(graph: &GraphInput<'_>) -> Footprint {
    let (nodes, _) = graph.claimed_size();
    let contributions = Footprint::of_array::<[f64; 2]>(nodes);
    Footprint {
        output: Footprint::of_array::<f64>(nodes).saturating_add(13),
        scratch: [graph.load_memory(), graph.predecessors_memory(), graph.segmented_memory(), contributions]
            .into_iter()
            .fold(0, u64::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_end_at_the_tolerance_at_the_limit_or_when_they_diverge() {
        let limits = Limits::new(5, 0.25, 4);
        let run = |differences: &[f64]| {
            let mut differences = differences.iter().copied();
            limits.repeat(|| Ok(differences.next().expect("no iteration after the last"))).unwrap()
        };
        let stopped = |iterations, difference, converged| Convergence { iterations, difference, converged };
        assert_eq!(run(&[8.0, 1.0, 0.5]), stopped(3, 0.5, true));
        assert_eq!(run(&[8.0, 7.0, 6.0, 5.0, 4.0]), stopped(5, 4.0, false));
        let diverged = run(&[8.0, f64::INFINITY, f64::NAN]);
        assert!(diverged.iterations == 3 && diverged.difference.is_nan() && !diverged.converged);
    }

    #[test]
    fn limits_that_share_an_iteration_stop_where_each_would_alone() {
        let limits = |max_iterations, tolerance| Limits { max_iterations, tolerance };
        let all = [limits(6, 0.5), limits(2, 0.0), limits(100, 1.0), limits(100, 0.75), limits(2, 2.0), limits(5, 0.0)];
        for differences in [[8.0, 4.0, 1.0, 0.75, 0.5, 0.25], [8.0, 0.5, 0.5, f64::NAN, 0.0, 0.0], [f64::NAN; 6]] {
            let next = |at: &mut usize| {
                *at += 1;
                Ok(differences[*at - 1])
            };
            let mut made = 0;
            let together = repeat_for_all(&all, |limits| {
                let convergence = limits.repeat(|| next(&mut made))?;
                Ok((convergence, made))
            });
            for (limits, (values, convergence)) in all.iter().zip(together.unwrap()) {
                let mut alone = 0;
                let expected = limits.repeat(|| next(&mut alone)).unwrap();
                assert_eq!(format!("{convergence:?}"), format!("{expected:?}"), "{limits:?} of {differences:?}");
                assert_eq!(values, alone, "{limits:?} of {differences:?}");
            }
        }
    }
}
