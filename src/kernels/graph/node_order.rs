//! [`NodeOrder`]: an order of the nodes that a seed chooses.

/// A pseudorandom order of the nodes: by a hash that is different for each node.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeOrder {
    pub(super) seed: u64,
}

impl NodeOrder {
    /// Returns the key by which a node is ordered. `label_propagation.cu` has the same function.
    #[inline]
    pub(super) fn key(self, node: u32) -> u32 {
        let [low, high] = [self.seed as u32, (self.seed >> 32) as u32];
        mix(mix(node ^ low).wrapping_add(high))
    }
}

/// A bijection of 32-bit words whose result is spread evenly: `lowbias32` of Wellons, *Prospecting for hash functions*
/// (2018).
#[inline]
fn mix(mut word: u32) -> u32 {
    word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_depend_on_the_whole_seed() {
        let keys = |seed| (0..100_000).map(|node| NodeOrder { seed }.key(node)).collect::<Vec<_>>();
        for seed in [0, 1, 1 << 32] {
            let mut sorted = keys(seed);
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert_ne!(keys(0), keys(1));
        assert_ne!(keys(0), keys(1 << 32));
    }
}
