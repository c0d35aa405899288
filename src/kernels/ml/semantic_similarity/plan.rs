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
    /// Where a block has the rounded queries.
    place: Place,
    pub(super) threads: u32,
    /// Blocks of a multiprocessor.
    pub(super) blocks: u32,
    /// Its place in the entries of a type.
    pub(super) entry: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SharedMemory,
    /// In shared memory, beside the vectors that are in flight, as in `wide_ring_scan.cuh`.
    BesideVectors,
    /// In registers and shared memory, as `ring_scan.cuh` has them beside vectors that are in flight.
    Registers,
}

/// Bytes between rounded queries in shared memory, as `query_stride` in `tensor_cores.cuh` has them.
const GAP: usize = 64;
/// Shared memory of `ring_scan.cuh`: a third of the queries, and the stages.
const RING: usize = 128 * 256 * 2 + 10 * 64 * 128 * 2;
/// The longest vectors that it takes.
const RING_DIMENSION: usize = 768;
/// Bytes of the stages in `wide_ring_scan.cuh`, and of the 512 floats after them.
const WIDE_RING: usize = 4 * 64 * 128 + 512 * 4;

/// For few queries, whose products take little time, the error is small.
const FEW: Plan =
    Plan { columns: 8, terms: 2, padding: 256, place: Place::SharedMemory, threads: 256, blocks: 2, entry: 0 };
const SOME: Plan =
    Plan { columns: 64, terms: 1, padding: 256, place: Place::SharedMemory, threads: 256, blocks: 1, entry: 1 };
const MANY: Plan = Plan {
    columns: MAX_COLUMNS,
    terms: 1,
    padding: 128,
    place: Place::SharedMemory,
    threads: 384,
    blocks: 1,
    entry: 2,
};
/// What the entry of `MANY` is on Hopper: for 16-bit numbers, and for single precision.
const MANY_IN_REGISTERS: Plan = Plan { place: Place::Registers, ..MANY };
const MANY_BESIDE_VECTORS: Plan = Plan { place: Place::BesideVectors, ..MANY };

impl Plan {
    /// The number of entries of a type.
    pub(super) const ENTRIES: usize = 3;

    /// Returns the plan with the fewest passes, and of these that with the fewest columns; none where no queries of this
    /// length fit into the memory of a block. `size` is that of a number of the corpus, in bytes.
    pub(super) fn new(queries: usize, dimension: usize, size: usize, compute_capability: (u32, u32)) -> Option<Self> {
        let plans: &[Self] = match compute_capability {
            // It is faster than that for 64 queries, whatever their number.
            (9, _) if size == 2 && dimension <= RING_DIMENSION => &[FEW, MANY_IN_REGISTERS],
            // What the entry for many queries is on Hopper takes no longer vectors.
            (9, _) if size == 2 => &[FEW, SOME],
            (9, _) => &[FEW, SOME, MANY_BESIDE_VECTORS],
            _ => &[FEW, SOME, MANY],
        };
        let available = free_shared_memory(compute_capability);
        let fitting = plans.iter().filter(|plan| plan.shared_memory(dimension) <= available);
        fitting.min_by_key(|plan| (queries.div_ceil(plan.columns), plan.columns)).copied()
    }

    /// Dynamic shared memory of a block, in bytes.
    pub(super) fn shared_memory(&self, dimension: usize) -> usize {
        match self.place {
            Place::SharedMemory => self.columns * self.terms * (2 * self.padded(dimension) + GAP),
            Place::BesideVectors => self.columns * self.terms * 2 * self.padded(dimension) + WIDE_RING,
            Place::Registers => RING,
        }
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
            |queries, dimension, capability| Plan::new(queries, dimension, 4, capability).map(|plan| plan.columns);
        assert_eq!(
            [1, 8, 9, 64, 65, 128, 1000].map(|queries| columns(queries, 768, (9, 0))),
            [Some(8), Some(8), Some(64), Some(64), Some(128), Some(128), Some(128)]
        );
        assert_eq!(columns(128, 1024, (9, 0)), Some(64));
        assert_eq!(columns(128, 768, (10, 0)), Some(128));
        let columns_of_halves = |queries, dimension| Plan::new(queries, dimension, 2, (9, 0)).map(|plan| plan.columns);
        assert_eq!([1, 8, 9, 1000].map(|queries| columns_of_halves(queries, 768)), [8, 8, 128, 128].map(Some));
        assert_eq!([64, 1000].map(|queries| columns_of_halves(queries, 776)), [64, 64].map(Some));
        assert_eq!([512, 576].map(|dimension| columns(128, dimension, (8, 0))), [Some(128), Some(64)]);
        assert_eq!(columns(128, 768, (7, 5)), Some(8));
        assert_eq!(columns(1, 1 << 20, (9, 0)), None);
    }
}
