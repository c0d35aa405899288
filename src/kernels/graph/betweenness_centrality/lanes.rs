//! Rows of one number for each lane, and the operations on them that the compiler turns into vector code.

/// A bit for each lane.
pub(super) type LaneSet = u8;

/// Rows for all nodes, a wide one in one cache line. Zeroed pages come from the system as they are touched, so a large
/// graph of which a traversal sees little costs little.
pub(super) struct Rows<const LANES: usize> {
    values: Vec<f64>,
    start: usize,
}

impl<const LANES: usize> Rows<LANES> {
    pub(super) fn new(num_nodes: usize) -> Self {
        let values = vec![0.0_f64; (num_nodes + 1) * LANES];
        let start = values.as_ptr().align_offset(LANES * size_of::<f64>()).min(LANES);
        Self { values, start }
    }

    #[inline(always)]
    pub(super) fn rows(&mut self) -> &mut [[f64; LANES]] {
        self.values[self.start..].as_chunks_mut().0
    }
}

/// All bits of the lanes in a set. Looked up, because the compiler makes vector code of this where it does not of tests
/// of single bits.
struct Masks<const LANES: usize>;

impl<const LANES: usize> Masks<LANES> {
    const OF: [[u64; LANES]; 1 << LaneSet::BITS] = {
        let mut masks = [[0; LANES]; 1 << LaneSet::BITS];
        let mut set = 0;
        while set < masks.len() {
            let mut lane = 0;
            while lane < LANES {
                masks[set][lane] = if set >> lane & 1 == 1 { u64::MAX } else { 0 };
                lane += 1;
            }
            set += 1;
        }
        masks
    };
}

/// The lanes that are not zero.
#[inline(always)]
pub(super) fn nonzero<const LANES: usize>(row: &[f64; LANES]) -> LaneSet {
    let lanes: [u64; LANES] = std::array::from_fn(|lane| u64::from(row[lane] != 0.0) << lane);
    lanes.into_iter().fold(0, |set, lane| set | lane) as LaneSet
}

/// The given lanes of `row`, 0 in the others.
#[inline(always)]
pub(super) fn only<const LANES: usize>(row: &[f64; LANES], lanes: LaneSet) -> [f64; LANES] {
    let mask = &Masks::<LANES>::OF[lanes as usize];
    std::array::from_fn(|lane| f64::from_bits(row[lane].to_bits() & mask[lane]))
}

/// Writes the given lanes of `from` into `to`.
#[inline(always)]
pub(super) fn merge<const LANES: usize>(to: &mut [f64; LANES], from: &[f64; LANES], lanes: LaneSet) {
    let mask = &Masks::<LANES>::OF[lanes as usize];
    for lane in 0..LANES {
        let bits = (from[lane].to_bits() & mask[lane]) | (to[lane].to_bits() & !mask[lane]);
        to[lane] = f64::from_bits(bits);
    }
}

/// Adds the given lanes of `from` to `to`.
#[inline(always)]
pub(super) fn add<const LANES: usize>(to: &mut [f64; LANES], from: &[f64; LANES], lanes: LaneSet) {
    let from = only(from, lanes);
    for lane in 0..LANES {
        to[lane] += from[lane];
    }
}

/// Adds up the lanes, halves first: one after the other would be a chain of additions that wait for each other.
#[inline(always)]
pub(super) fn total<const LANES: usize>(mut row: [f64; LANES]) -> f64 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            row[lane] += row[lane + width];
        }
    }
    row[0]
}
