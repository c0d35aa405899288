//! [`Selection`]: the most similar of the pairs that have been compared.

use std::sync::atomic::{AtomicU64, Ordering};

/// Pairs for which there is room besides the wanted ones.
const MIN_ROOM: usize = 1 << 12;

/// A pair that has been compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Finite and not negative.
    pub(super) distance: f64,
    pub(super) nodes: [u32; 2],
}

impl Candidate {
    /// By distance, then by nodes. The bits of numbers that are not negative are in the order of the numbers.
    pub(super) fn key(&self) -> (u64, [u32; 2]) {
        (self.distance.to_bits(), self.nodes)
    }
}

/// A distance that bounds those of the wanted pairs, shared by all threads.
#[derive(Debug)]
pub(super) struct SharedBound(AtomicU64);

impl SharedBound {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(f64::INFINITY.to_bits()))
    }

    /// Whether a pair at this distance may be wanted.
    fn admits(&self, distance: f64) -> bool {
        distance.to_bits() <= self.0.load(Ordering::Relaxed)
    }

    fn lower(&self, distance: f64) {
        self.0.fetch_min(distance.to_bits(), Ordering::Relaxed);
    }
}

/// The first pairs in the order of [`Candidate::key`], and how many have been found in all.
#[derive(Debug)]
pub(super) struct Selection {
    max_pairs: usize,
    candidates: Vec<Candidate>,
    pub(super) matching_pairs: u64,
}

/// Returns the bytes of the candidates of all threads.
pub(super) fn scratch_bytes(max_pairs: u64) -> u64 {
    let candidates = max_pairs.saturating_add(max_pairs.max(MIN_ROOM as u64)).saturating_mul(2);
    let threads = rayon::current_num_threads() as u64;
    // Rayon splits work several times for each thread.
    candidates.saturating_mul(4 * threads).saturating_mul(size_of::<Candidate>() as u64)
}

impl Selection {
    pub(super) fn new(max_pairs: usize) -> Self {
        Self { max_pairs, candidates: Vec::new(), matching_pairs: 0 }
    }

    /// Adds a pair, which is counted.
    pub(super) fn add(&mut self, candidate: Candidate, bound: &SharedBound) {
        self.matching_pairs += 1;
        if bound.admits(candidate.distance) {
            self.candidates.push(candidate);
            if self.candidates.len() >= self.max_pairs + self.max_pairs.max(MIN_ROOM) {
                self.keep_first();
                bound.lower(self.candidates[self.max_pairs - 1].distance);
            }
        }
    }

    /// Adds pairs that have been counted already; returns the last that may be wanted, if there are enough.
    #[cfg(feature = "cuda")]
    pub(super) fn add_counted(&mut self, candidates: impl IntoIterator<Item = Candidate>) -> Option<Candidate> {
        self.candidates.extend(candidates);
        if self.candidates.len() < self.max_pairs {
            return None;
        }
        self.keep_first();
        self.candidates.last().copied()
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.matching_pairs += other.matching_pairs;
        self.candidates.extend(other.candidates);
        self.keep_first();
        self
    }

    /// Keeps the wanted pairs, the last of them at the end.
    fn keep_first(&mut self) {
        if self.candidates.len() >= self.max_pairs {
            self.candidates.select_nth_unstable_by_key(self.max_pairs - 1, Candidate::key);
            self.candidates.truncate(self.max_pairs);
        }
    }

    /// The wanted pairs in their order.
    pub(super) fn into_sorted(mut self) -> Vec<Candidate> {
        self.keep_first();
        self.candidates.sort_unstable_by_key(Candidate::key);
        self.candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn the_first_are_those_of_a_sort_however_they_come() {
        let mut random = Random::new(3);
        let mut all: Vec<Candidate> = (0..50_000)
            .map(|pair| Candidate { distance: random.below(500) as f64, nodes: [pair / 200, pair % 200] })
            .collect();
        let bound = SharedBound::new();
        let mut parts = all.chunks(17_000).map(|part| {
            let mut selection = Selection::new(700);
            part.iter().rev().for_each(|&candidate| selection.add(candidate, &bound));
            selection
        });
        let first = parts.next().unwrap();
        let merged = parts.fold(first, Selection::merge);
        assert_eq!(merged.matching_pairs, 50_000);
        all.sort_by_key(Candidate::key);
        assert_eq!(merged.into_sorted(), all[..700]);
    }
}
