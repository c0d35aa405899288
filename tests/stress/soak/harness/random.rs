//! Numbers that are the same for the same seed.

use tower_kernels::request::Priority;

/// Marsaglia's xorshift, seeded through a multiplication so that neighbouring seeds have nothing in common.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * bound) >> 32
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    pub(super) fn priority(&mut self) -> Priority {
        [Priority::Low, Priority::Normal, Priority::Normal, Priority::High][self.below(4) as usize]
    }
}
