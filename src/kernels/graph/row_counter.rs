//! [`RowCounter`]: which nodes of a row are in other rows, and how often.

/// A slot without a node. Nodes are below [`MAX_NODES`](super::csr::MAX_NODES).
const EMPTY: u32 = u32::MAX;
/// The fewest slots.
const MIN_SLOTS: usize = 16;

/// Bits of the filter for each slot.
const BITS_PER_SLOT: usize = 8;
/// Nodes that go through the filter before they are looked up.
const PIECE: usize = 256;

/// A hash set of the nodes of a row of an oriented graph, with a count for each: open addressing with linear probing,
/// at most a quarter full.
///
/// Most nodes that are looked up are not in the set, and the processor cannot predict which are. So a filter, which has
/// a bit for each hash, first picks those that may be, without a branch.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    nodes: Vec<u32>,
    counts: Vec<u32>,
    filter: Vec<u64>,
    /// The bits by which a hash is longer than the number of a slot, and of a bit of the filter.
    slot_shift: u32,
    bit_shift: u32,
}

impl RowCounter {
    /// Replaces the nodes by those of `row`, which differ, and sets their counts to 0.
    pub(super) fn fill(&mut self, row: &[u32]) {
        let slots = (4 * row.len()).next_power_of_two().max(MIN_SLOTS);
        let bits = slots * BITS_PER_SLOT;
        self.nodes.clear();
        self.nodes.resize(slots, EMPTY);
        self.counts.clear();
        self.counts.resize(slots, 0);
        self.filter.clear();
        self.filter.resize(bits / 64, 0);
        self.slot_shift = u32::BITS - slots.trailing_zeros();
        self.bit_shift = u32::BITS - bits.trailing_zeros();
        for &node in row {
            let mut slot = (hash(node) >> self.slot_shift) as usize;
            while self.nodes[slot] != EMPTY {
                slot = (slot + 1) & (slots - 1);
            }
            self.nodes[slot] = node;
            let bit = hash(node) >> self.bit_shift;
            self.filter[bit as usize / 64] |= 1 << (bit % 64);
        }
    }

    /// Adds 1 to the count of each node of `row` that is in the set. Returns how many there are.
    pub(super) fn count(&mut self, row: &[u32]) -> u32 {
        let mut common = 0;
        let mut candidates = [0; PIECE];
        for piece in row.chunks(PIECE) {
            let len = self.filter(piece, &mut candidates);
            for &node in &candidates[..len] {
                if let Some(slot) = self.find(node) {
                    self.counts[slot] += 1;
                    common += 1;
                }
            }
        }
        common
    }

    /// Copies the nodes that may be in the set to the start of `candidates`. Returns how many there are.
    fn filter(&self, piece: &[u32], candidates: &mut [u32; PIECE]) -> usize {
        let mut len = 0;
        for &node in piece {
            // Overwritten by the next, unless the filter has the bit.
            candidates[len % PIECE] = node;
            let bit = hash(node) >> self.bit_shift;
            len += (self.filter[bit as usize / 64] >> (bit % 64)) as usize & 1;
        }
        len
    }

    /// Adds to the count of a node, which is in the set.
    pub(super) fn add(&mut self, node: u32, count: u32) {
        if let Some(slot) = self.find(node) {
            self.counts[slot] += count;
        }
    }

    /// Calls `found` with each node whose count is not 0, and the count.
    pub(super) fn for_each(&self, mut found: impl FnMut(u32, u32)) {
        for (&node, &count) in self.nodes.iter().zip(&self.counts) {
            if count > 0 {
                found(node, count);
            }
        }
    }

    fn find(&self, node: u32) -> Option<usize> {
        let mut slot = (hash(node) >> self.slot_shift) as usize;
        loop {
            let found = self.nodes[slot];
            if found == node {
                return Some(slot);
            }
            if found == EMPTY {
                return None;
            }
            slot = (slot + 1) & (self.nodes.len() - 1);
        }
    }
}

/// Multiplicative hashing, of which the high bits are used.
fn hash(node: u32) -> u32 {
    node.wrapping_mul(0x9e37_79b1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn counts_are_those_of_the_nodes_in_the_row() {
        let mut random = Random::new(3);
        let mut counter = RowCounter::default();
        for len in [0, 1, 4, 5, 100, 3_000, 7] {
            let set: Vec<u32> = (0..len).map(|index| index * 3).collect();
            counter.fill(&set);
            let row: Vec<u32> = (0..500).map(|_| random.below(1 + 4 * u64::from(len)) as u32).collect();
            let is_in = |node: u32| node.is_multiple_of(3) && node < 3 * len;
            assert_eq!(counter.count(&row) as usize, row.iter().filter(|&&node| is_in(node)).count());
            if len > 0 {
                counter.add(0, 7);
            }
            let mut counts = vec![0; 1 + 4 * len as usize];
            counter.for_each(|node, count| counts[node as usize] = count);
            for (node, &count) in counts.iter().enumerate() {
                let expected = row.iter().filter(|&&other| other as usize == node && is_in(other)).count();
                assert_eq!(count as usize, expected + if len > 0 && node == 0 { 7 } else { 0 }, "{node} of {len}");
            }
        }
    }
}
