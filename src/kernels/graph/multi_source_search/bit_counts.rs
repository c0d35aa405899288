//! [`BitCounts`]: how many of some words have each bit.

/// A bit for each source of a pass.
pub(super) type Words<const W: usize> = [u64; W];

/// Returns whether any bit is set.
pub(super) fn is_any<const W: usize>(words: &Words<W>) -> bool {
    words.iter().fold(0, |any, word| any | word) != 0
}

/// Returns the bits of `words` that are not in `without`.
pub(super) fn difference<const W: usize>(words: &Words<W>, without: &Words<W>) -> Words<W> {
    std::array::from_fn(|at| words[at] & !without[at])
}

/// Sets the bits of `more`.
pub(super) fn insert<const W: usize>(words: &mut Words<W>, more: &Words<W>) {
    words.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
}

/// Returns how many bits are set.
pub(super) fn count<const W: usize>(words: &Words<W>) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// How many of some words have each bit.
///
/// Bit `b` of digit `i` is bit `i` of the count of `b`, so that words are added to all counts at once.
#[derive(Debug, Default)]
pub(super) struct BitCounts<const W: usize> {
    digits: Vec<Words<W>>,
}

impl<const W: usize> BitCounts<W> {
    /// Counts the bits of `words`.
    pub(super) fn add(&mut self, words: &Words<W>) {
        let mut carry = *words;
        for digit in &mut self.digits {
            for (digit, carry) in digit.iter_mut().zip(&mut carry) {
                (*digit, *carry) = (*digit ^ *carry, *digit & *carry);
            }
            if !is_any(&carry) {
                return;
            }
        }
        self.digits.push(carry);
    }

    /// Adds the count of each bit to the element at its index.
    pub(super) fn add_to(&self, counts: &mut [u64]) {
        for (place, digit) in self.digits.iter().enumerate() {
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += (digit[bit / 64] >> (bit % 64) & 1) << place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn bits_are_counted() {
        let random = SplitMix64::new(3);
        let words: Vec<Words<2>> =
            (0..1_000).map(|_| [random.next() & random.next(), random.next() | random.next()]).collect();
        let mut counts = BitCounts::default();
        words.iter().for_each(|words| counts.add(words));
        let mut found = [5; 100];
        counts.add_to(&mut found);
        for (bit, found) in found.into_iter().enumerate() {
            let expected = words.iter().filter(|words| words[bit / 64] >> (bit % 64) & 1 == 1).count();
            assert_eq!(found, 5 + expected as u64, "{bit}");
        }
    }
}
