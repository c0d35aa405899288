//! [`Plan`]: how a scan on CUDA reads the corpus.

use crate::kernels::device::shared_memory;

/// The most queries of a pass.
pub(super) const MAX_COLUMNS: usize = 128;

/// How a scan reads the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Queries of a pass.
    pub(super) columns: usize,
    /// Numbers of 16 bits that stand for one of a query.
    pub(super) terms: usize,
    /// What the length of a rounded query is a multiple of: the numbers of a vector that a warp has in flight.
    padding: usize,
    /// Bytes of dynamic shared memory besides those of the rounded queries.
    besides: usize,
    pub(super) threads: u32,
    /// Blocks of a multiprocessor.
    pub(super) blocks: u32,
    /// Its place in the entries of a type.
    pub(super) entry: usize,
}

/// Bytes between rounded queries, as `query_stride` in `tensor_cores.cuh` has them.
const GAP: usize = 64;
/// Bytes of the stages in `ring_scan.cuh`, and of the 512 floats after them.
const RING: usize = 4 * 64 * 128 + 512 * 4;

/// For few queries, whose products take little time, the error is small.
pub(super) const PLANS: [Plan; 3] = [
    Plan { columns: 8, terms: 2, padding: 256, besides: 16 * GAP, threads: 256, blocks: 2, entry: 0 },
    Plan { columns: 64, terms: 1, padding: 256, besides: 64 * GAP, threads: 256, blocks: 1, entry: 1 },
    Plan { columns: MAX_COLUMNS, terms: 1, padding: 128, besides: 128 * GAP, threads: 384, blocks: 1, entry: 2 },
];

impl Plan {
    /// Returns the plan with the fewest passes, and of these that with the fewest columns; none where no queries of this
    /// length fit into the shared memory of a block.
    pub(super) fn new(queries: usize, dimension: usize, compute_capability: (u32, u32)) -> Option<Self> {
        let has_ring = |plan: &Plan| plan.columns == MAX_COLUMNS && compute_capability.0 == 9;
        let plans = PLANS.map(|plan| if has_ring(&plan) { Plan { besides: RING, ..plan } } else { plan });
        let available = free_shared_memory(compute_capability);
        let fitting = plans.into_iter().filter(|plan| plan.shared_memory(dimension) <= available);
        fitting.min_by_key(|plan| (queries.div_ceil(plan.columns), plan.columns))
    }

    /// Dynamic shared memory of a block.
    pub(super) fn shared_memory(&self, dimension: usize) -> usize {
        self.columns * self.terms * 2 * self.padded(dimension) + self.besides
    }

    /// The length of a rounded query.
    pub(super) fn padded(&self, dimension: usize) -> usize {
        dimension.next_multiple_of(self.padding)
    }
}

/// Returns the shared memory that a block can have besides that of its variables, in bytes.
const fn free_shared_memory(capability: (u32, u32)) -> usize {
    shared_memory(capability) as usize - (1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_the_fewest_passes_that_fit() {
        let columns =
            |queries, dimension, capability| Plan::new(queries, dimension, capability).map(|plan| plan.columns);
        assert_eq!(
            [1, 8, 9, 64, 65, 128, 1000].map(|queries| columns(queries, 768, (9, 0))),
            [Some(8), Some(8), Some(64), Some(64), Some(128), Some(128), Some(128)]
        );
        assert_eq!(columns(128, 1024, (9, 0)), Some(64));
        assert_eq!(columns(128, 768, (10, 0)), Some(128));
        assert_eq!([512, 576].map(|dimension| columns(128, dimension, (8, 0))), [Some(128), Some(64)]);
        assert_eq!(columns(128, 768, (7, 5)), Some(8));
        assert_eq!(columns(1, 1 << 20, (9, 0)), None);
    }
}
