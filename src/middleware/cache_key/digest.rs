//! The digest that questions are found by.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The digest of a question.
#[inline]
pub(super) fn of(question: &impl Hash) -> u128 {
    let mut digest = Digest(u128::from(seed()));
    question.hash(&mut digest);
    digest.0
}

/// Of the process's own, so that nobody can prepare requests that get in each other's way.
#[inline]
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0))
}

/// Each piece of bytes is hashed with what came before as the seed. XXH3's own streaming form first copies half a
/// kilobyte, several times what a short question costs.
struct Digest(u128);

/// Odd, and half of its bits set.
const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

impl Digest {
    #[inline]
    fn add(&mut self, value: u128) {
        self.0 = (self.0 ^ value).wrapping_mul(FACTOR).rotate_left(59);
    }
}

impl Hasher for Digest {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.add(xxh3_128_with_seed(bytes, self.finish()));
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        // The end of a string, most of the time, whose length is a part of its hash already.
        self.0 = (self.0 ^ u128::from(value)).rotate_left(23);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.add(value.into());
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.add(value as u128);
    }

    #[inline]
    fn finish(&self) -> u64 {
        (self.0 as u64) ^ ((self.0 >> 64) as u64)
    }
}

/// For tables by digest: it has been hashed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::middleware) struct ByDigest;

#[derive(Debug)]
pub(in crate::middleware) struct Folded(u64);

impl BuildHasher for ByDigest {
    type Hasher = Folded;

    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded(0)
    }
}

impl Hasher for Folded {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "digests are written as numbers, and these are {} bytes", bytes.len());
    }

    #[inline]
    fn write_u128(&mut self, digest: u128) {
        self.0 = (digest as u64) ^ ((digest >> 64) as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::of;

    #[test]
    fn equal_questions_have_one_digest_and_others_another() {
        assert_eq!(of(&("a/b", 7_u64, vec![1_u8; 300])), of(&("a/b", 7_u64, vec![1_u8; 300])));
        let mut digests = HashSet::new();
        for length in 0..600 {
            assert!(digests.insert(of(&vec![0_u8; length])));
        }
        for number in 0..1000_u64 {
            assert!(digests.insert(of(&number)));
            assert!(digests.insert(of(&(number, number))));
        }
        // Where a piece ends is a part of the question.
        assert!(digests.insert(of(&("ab", "c"))) && digests.insert(of(&("a", "bc"))));
    }

    #[test]
    fn every_bit_of_a_question_changes_half_of_the_digest() {
        let base = [0x5a_u8; 64];
        for bit in 0..512 {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            let changed = (of(&base) ^ of(&other)).count_ones();
            assert!((32..=96).contains(&changed), "bit {bit} changes {changed} of 128");
        }
    }
}
