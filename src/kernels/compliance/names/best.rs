//! [`Best`]: the best matches of a query.

use std::sync::atomic::{AtomicU64, Ordering};

/// Matches for which there is room besides the best k.
const MIN_ROOM: usize = 256;

/// An entry that matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Match {
    pub(crate) score: f64,
    pub(crate) entry: u32,
    /// Which of its names is the most similar: 0 is its name, and 1 its first alias.
    pub(crate) position: u32,
}

/// Collects matches and keeps the best k entries, of equal scores those that come first in the list.
pub(super) struct Best<'a> {
    k: usize,
    matches: Vec<Match>,
    /// The bits of a score: none that is lower is among the best. All tasks of a query share it.
    threshold: &'a AtomicU64,
}

impl<'a> Best<'a> {
    pub(super) fn new(k: usize, threshold: &'a AtomicU64) -> Self {
        Self { k, matches: Vec::new(), threshold }
    }

    /// Returns the score that a match must have.
    pub(super) fn threshold(&self) -> f64 {
        f64::from_bits(self.threshold.load(Ordering::Relaxed))
    }

    pub(super) fn add(&mut self, found: Match) {
        if found.score < self.threshold() {
            return;
        }
        self.matches.push(found);
        if self.matches.len() >= 2 * self.k + MIN_ROOM {
            self.keep_best();
        }
    }

    pub(super) fn into_matches(mut self) -> Vec<Match> {
        self.keep_best();
        self.matches
    }

    fn keep_best(&mut self) {
        let descending = |a: &Match, b: &Match| b.score.total_cmp(&a.score);
        self.matches
            .sort_unstable_by(|a, b| a.entry.cmp(&b.entry).then(descending(a, b)).then(a.position.cmp(&b.position)));
        self.matches.dedup_by_key(|found| found.entry);
        self.matches.sort_unstable_by(|a, b| descending(a, b).then(a.entry.cmp(&b.entry)));
        self.matches.truncate(self.k);
        if self.matches.len() == self.k
            && let Some(last) = self.matches.last()
        {
            // The bits of scores, which are not negative, are in the order of the scores.
            self.threshold.fetch_max(last.score.to_bits(), Ordering::Relaxed);
        }
    }
}
