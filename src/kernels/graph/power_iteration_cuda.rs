//! The loop of power iterations on CUDA, for one or several vectors at once.

use super::power_iteration::{Convergence, Limits};
use super::spmv_cuda::{self, Matrix, Products};
use crate::cuda::DeviceBuffer;
use crate::service::{KernelError, LaunchContext};

/// Iterations that are launched before the host waits for them and reads whether all vectors are done. Launches after that,
/// and products after the run is cancelled, do nothing.
const ITERATIONS_PER_CHECK: u32 = 16;

/// The 64-bit words of an `IterationState` of `spmv.cuh`.
const STATE_WORDS: usize = 4;

/// Returns the device memory of an iteration of `width` vectors: the graph, the products, and this many numbers for each node.
pub(super) fn device_memory(nodes: u64, arcs: u64, numbers: u64, width: u64) -> u64 {
    let numbers = nodes.saturating_mul(8).saturating_mul(numbers);
    // Offsets both ways, and columns.
    let graph = nodes.saturating_mul(8).saturating_add(arcs.saturating_mul(4));
    graph.saturating_add(numbers).saturating_add(spmv_cuda::device_memory(nodes, arcs, width))
}

/// Vectors that are iterated together.
pub(super) struct IterationsOnDevice<'a> {
    limits: &'a [Limits],
    /// An `IterationState` of `spmv.cuh` for each vector.
    pub(super) states: DeviceBuffer<u64>,
    /// What each node contributes in an iteration and in the next, by turns.
    contributions: [DeviceBuffer<f64>; 2],
}

/// The arrays of an iteration.
pub(super) struct IterationBuffers<'a> {
    pub(super) states: &'a DeviceBuffer<u64>,
    /// What each node contributed to the sums.
    pub(super) from: &'a DeviceBuffer<f64>,
    /// What each node will contribute in the next iteration.
    pub(super) to: &'a DeviceBuffer<f64>,
}

impl<'a> IterationsOnDevice<'a> {
    /// Uploads the states of vectors before their first iteration, and fills their contributions with zeros. What they
    /// start with is to be written to the first of `contributions` after that.
    pub(super) fn new(
        limits: &'a [Limits],
        contributions: [DeviceBuffer<f64>; 2],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        contributions.iter().try_for_each(|contributions| cuda.zero(contributions))?;
        Self::resume(limits, contributions, cuda)
    }

    /// As [`new`](Self::new), with contributions that go on from those of the iterations before, which the first of the two
    /// has.
    pub(super) fn resume(
        limits: &'a [Limits],
        contributions: [DeviceBuffer<f64>; 2],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let state = |limits: &Limits| [limits.tolerance.to_bits(), 0, u64::from(limits.max_iterations), 0];
        let states = cuda.upload(&limits.iter().flat_map(state).collect::<Vec<u64>>())?;
        Ok(Self { limits, states, contributions })
    }

    /// Launches iterations until all vectors are done: the product, and what `update` launches, which is to end the
    /// iteration of each state.
    pub(super) fn run(
        self,
        matrix: &Matrix,
        products: &Products,
        cuda: &mut LaunchContext<'_>,
        update: impl Fn(&IterationBuffers<'_>, &mut LaunchContext<'_>) -> Result<(), KernelError>,
    ) -> Result<Vec<Convergence>, KernelError> {
        let Self { limits, states, contributions: [mut from, mut to] } = self;
        let width = limits.len() as u32;
        let mut left = limits.iter().map(|limits| limits.max_iterations).max().unwrap_or(0);
        loop {
            let launched = left.min(ITERATIONS_PER_CHECK);
            left -= launched;
            for _ in 0..launched {
                matrix.multiply(width, &states, &from, products, cuda)?;
                update(&IterationBuffers { states: &states, from: &from, to: &to }, cuda)?;
                std::mem::swap(&mut from, &mut to);
            }
            let words = cuda.download(&states)?;
            let (words, _) = words.as_chunks::<STATE_WORDS>();
            if words.iter().all(|&[.., flags]| flags as u32 != 0) {
                let convergence = |(words, limits): (&[u64; STATE_WORDS], &Limits)| {
                    limits.convergence((words[2] >> 32) as u32, f64::from_bits(words[1]))
                };
                return Ok(words.iter().zip(limits).map(convergence).collect());
            }
        }
    }
}
