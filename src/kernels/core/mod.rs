//! Sorting, selecting and aggregating numbers of any type.

pub mod sort;

use super::authoring::Random;
use crate::service::NumberArray;

/// Random numbers of a random type for tests, some of them equal. An `f64` holds each exactly.
fn random_numbers(count: usize, random: &mut Random) -> NumberArray {
    // Few or many different ones.
    let bound = if random.below(2) == 0 { 1 + count as u64 / 4 } else { 1 << 31 };
    let kind = random.below(6);
    let mut below = || random.below(bound);
    match kind {
        0 => (0..count).map(|_| below() as u32).collect::<Vec<_>>().into(),
        1 => (0..count).map(|_| below() as i32 - (bound / 2) as i32).collect::<Vec<_>>().into(),
        2 => (0..count).map(|_| below() << 22).collect::<Vec<_>>().into(),
        3 => (0..count).map(|_| (below().cast_signed() - (bound / 2).cast_signed()) << 22).collect::<Vec<_>>().into(),
        4 => (0..count).map(|_| (below() as f32 - (bound / 2) as f32) / 3.0).collect::<Vec<_>>().into(),
        _ => (0..count).map(|_| (below() as f64 - (bound / 2) as f64) / 3.0).collect::<Vec<_>>().into(),
    }
}
