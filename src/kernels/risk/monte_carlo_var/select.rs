//! Order statistics of many numbers by radix selection: three passes that count, over 12, 10 and 10 bits, and no sort.

use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};
use crate::service::KernelError;

/// The number of losses that have each value of some bits, among those whose higher bits are one of `prefixes`.
#[derive(Debug, Clone)]
pub(super) struct Level {
    /// How many lower bits are not counted by.
    pub(super) shift: u32,
    /// How many bits are counted by.
    pub(super) bits: u32,
    /// Values of the higher bits, in ascending order. One of 0 for all numbers at the first level.
    pub(super) prefixes: Vec<u32>,
}

impl Level {
    /// Where the number with these [ordered bits](OrderedNumber::to_ordered) is counted.
    #[inline]
    pub(super) fn bin(&self, bits: u32) -> Option<usize> {
        let prefix = u64::from(bits) >> (self.shift + self.bits);
        let index = self.prefixes.binary_search(&(prefix as u32)).ok()?;
        Some(index << self.bits | (bits >> self.shift) as usize & ((1 << self.bits) - 1))
    }

    /// How many counts there are.
    pub(super) fn bins(&self) -> usize {
        self.prefixes.len() << self.bits
    }
}

/// Returns the numbers of these ranks, counted from 0 for the smallest, each below the number of numbers.
///
/// # Errors
/// Those of `count`, which returns the counts of a level.
pub(super) fn select(
    ranks: &[u64],
    mut count: impl FnMut(&Level) -> Result<Vec<u32>, KernelError>,
) -> Result<Vec<f32>, KernelError> {
    // The bits found so far, and the rank among the numbers that have them.
    let mut found: Vec<(u32, u64)> = ranks.iter().map(|&rank| (0, rank)).collect();
    for (shift, bits) in [(20, 12), (10, 10), (0, 10)] {
        let mut prefixes: Vec<u32> = found.iter().map(|(prefix, _)| *prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let level = Level { shift, bits, prefixes };
        let counts = count(&level)?;
        for (prefix, rank) in &mut found {
            let Ok(index) = level.prefixes.binary_search(prefix) else { continue };
            let mut digit = 0;
            for &count in &counts[index << bits..(index + 1) << bits] {
                if *rank < u64::from(count) {
                    break;
                }
                *rank -= u64::from(count);
                digit += 1;
            }
            *prefix = *prefix << bits | digit;
        }
    }
    Ok(found.into_iter().map(|(bits, _)| f32::from_ordered(bits, SortOrder::Ascending)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn selected_are_the_numbers_of_a_sort() {
        let mut random = Random::new(5);
        for count in [1, 2, 100, 10_000] {
            let few = random.below(2) == 0;
            let draw = |random: &mut Random| if few { random.below(5) as f32 - 2.0 } else { random.number() as f32 };
            let numbers: Vec<f32> = (0..count).map(|_| draw(&mut random)).collect();
            let mut sorted = numbers.clone();
            sorted.sort_by(f32::total_cmp);
            let ranks: Vec<u64> = [0, count / 3, count / 2, count - 1].map(|rank| rank as u64).to_vec();
            let selected = select(&ranks, |level| {
                let mut counts = vec![0; level.bins()];
                for &number in &numbers {
                    if let Some(bin) = level.bin(number.to_ordered(SortOrder::Ascending)) {
                        counts[bin] += 1;
                    }
                }
                Ok(counts)
            });
            let expected: Vec<f32> = ranks.iter().map(|&rank| sorted[rank as usize]).collect();
            assert_eq!(selected.unwrap(), expected, "{count}");
        }
    }
}
