//! The search of the best matches on the CPU, parallel over the worker pool.

use std::sync::atomic::AtomicU64;

use pulp::Arch;
use rayon::prelude::*;

use super::best::{Best, Match};
use super::distance::{common_subsequence, jaro_winkler, levenshtein};
use super::form::MAX_PREFIX;
use super::list::NameList;
use super::pattern::Pattern;
use super::query::{PreparedQuery, Query};
use super::scores::{Scorer, similarity};
use super::token_set::token_set;
use crate::service::{KernelError, RunContext};

/// Names between two checks of the context.
const NAMES_PER_CHECK: usize = 1 << 10;
/// The least names of a task.
const NAMES_PER_TASK: usize = 1 << 13;
/// A score must be lower than what is compared with it by this much to be lower without rounding.
pub(super) const ROUNDING: f64 = 1e-9;

/// Returns the best `k` entries of each query among these names of the list.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn search(
    list: &NameList,
    scorer: Scorer,
    queries: &[Query],
    k: usize,
    names: std::ops::Range<usize>,
    context: &RunContext<'_>,
) -> Result<Vec<Vec<Match>>, KernelError> {
    // Few queries: the list is split as well.
    let parts = (4 * rayon::current_num_threads()).div_ceil(queries.len().max(1));
    let part_len = names.len().div_ceil(parts).max(NAMES_PER_TASK);
    let of_query = |query: &Query| {
        let query = &PreparedQuery::new(query, list, scorer);
        let threshold = AtomicU64::new(query.min_score.to_bits());
        let starts: Vec<usize> = names.clone().step_by(part_len).collect();
        let tasks = starts.into_par_iter().map(|start| {
            let mut best = Best::new(k, &threshold);
            let part = start..names.end.min(start + part_len);
            Searcher { list, scorer, query, context }.search(part, &mut best)?;
            Ok(best.into_matches())
        });
        let parts = tasks.collect::<Result<Vec<_>, KernelError>>()?;
        let mut best = Best::new(k, &threshold);
        parts.into_iter().flatten().for_each(|found| best.add(found));
        Ok(best.into_matches())
    };
    queries.par_iter().map(of_query).collect()
}

struct Searcher<'a> {
    list: &'a NameList,
    scorer: Scorer,
    query: &'a PreparedQuery,
    context: &'a RunContext<'a>,
}

impl Searcher<'_> {
    fn search(&self, names: std::ops::Range<usize>, best: &mut Best<'_>) -> Result<(), KernelError> {
        let mut may_match = Vec::with_capacity(NAMES_PER_CHECK);
        for pattern in &self.query.patterns {
            let mut bounds = Bounds::new(self.scorer, pattern.len());
            let mut until_check = 0;
            // Names of about the same length first, as they have the best scores and raise the threshold.
            let mut starts: Vec<usize> = names.clone().step_by(NAMES_PER_CHECK).collect();
            starts.sort_by_key(|&start| self.form().codes(start).len().abs_diff(pattern.len()));
            for start in starts {
                self.context.check()?;
                let threshold = self.query.name_threshold(best.threshold()) - ROUNDING;
                let chunk = start..names.end.min(start + NAMES_PER_CHECK);
                may_match.clear();
                // With the processor's instruction that counts bits.
                Arch::new().dispatch(|| self.filter(pattern, chunk, threshold, &mut bounds, &mut may_match));
                for &name in &may_match {
                    let work = pattern.masks.words * self.form().codes(name).len();
                    until_check += work;
                    if until_check > 1 << 17 {
                        self.context.check()?;
                        until_check = 0;
                    }
                    self.score_name(pattern, name, best);
                }
            }
        }
        Ok(())
    }

    fn form(&self) -> &super::form::NameForm {
        if self.scorer.is_of_tokens() { &self.list.sorted } else { &self.list.plain }
    }

    /// Collects the names that may reach the threshold, by the characters that they can have in common with the pattern.
    // Into the code that pulp compiles for the processor's instructions.
    #[inline(always)]
    fn filter(
        &self,
        pattern: &Pattern,
        names: std::ops::Range<usize>,
        threshold: f64,
        bounds: &mut Bounds,
        may_match: &mut Vec<usize>,
    ) {
        let form = self.form();
        let [a, b] = pattern.signature;
        let m = pattern.len();
        for name in names {
            let [c, d] = form.signature(name);
            let full_len = (form.offsets[name + 1] - form.offsets[name]) as usize;
            let only_name = (c & !a).count_ones() + (d & !b).count_ones();
            let only_pattern = (a & !c).count_ones() + (b & !d).count_ones();
            let common = (full_len - only_name as usize).min(m - only_pattern as usize);
            let (len, prefix) = match self.scorer {
                Scorer::JaroWinkler => {
                    let differs = form.prefixes[name] ^ pattern.prefix;
                    (full_len, (differs.trailing_zeros() as usize / 16).min(MAX_PREFIX))
                }
                Scorer::TokenSet => (self.list.set_lengths[name] as usize, 0),
                _ => (full_len, 0),
            };
            let shares_token =
                self.scorer == Scorer::TokenSet && self.list.token_signatures[name] & pattern.token_signature != 0;
            if common >= bounds.needed(len, threshold)[prefix] || shares_token {
                may_match.push(name);
            }
        }
    }

    fn score_name(&self, pattern: &Pattern, name: usize, best: &mut Best<'_>) {
        let codes = self.form().codes(name);
        let (m, n) = (pattern.len(), codes.len());
        let score = match self.scorer {
            Scorer::JaroWinkler => {
                let prefix = codes.iter().zip(&pattern.codes).take(MAX_PREFIX).take_while(|(a, b)| a == b).count();
                jaro_winkler(m, &pattern.masks, codes, prefix)
            }
            Scorer::Edit => similarity(levenshtein(m, &pattern.masks, codes), m.max(n)),
            Scorer::Ratio | Scorer::TokenSort => {
                similarity(m + n - 2 * common_subsequence(&pattern.masks, codes), m + n)
            }
            Scorer::TokenSet => token_set(pattern, self.list, name),
        };
        let key = self.list.keys[name];
        let (entry, position) = ((key >> 32) as u32, key as u32);
        let score = self.query.combine(score, self.list.attributes_of(entry));
        best.add(Match { score, entry, position });
    }
}

/// How many characters a name must have in common with a pattern, by its length.
struct Bounds {
    scorer: Scorer,
    pattern_len: usize,
    /// For which length and threshold `needed` is; names come in the order of their lengths.
    of: (usize, u64),
    /// By the common prefix.
    needed: [usize; MAX_PREFIX + 1],
}

impl Bounds {
    fn new(scorer: Scorer, pattern_len: usize) -> Self {
        Self { scorer, pattern_len, of: (0, 0), needed: [0; MAX_PREFIX + 1] }
    }

    fn needed(&mut self, len: usize, threshold: f64) -> &[usize; MAX_PREFIX + 1] {
        let of = (len, threshold.to_bits());
        if self.of != of {
            self.of = of;
            self.needed = std::array::from_fn(|prefix| self.smallest(len, prefix, threshold));
        }
        &self.needed
    }

    /// Returns the least number of characters in common with which the score can be the threshold.
    fn smallest(&self, len: usize, prefix: usize, threshold: f64) -> usize {
        let lengths = [self.pattern_len, len];
        // Of 0 to `most`, and one more if none is enough.
        let (mut low, mut high) = (0, self.pattern_len.min(len) + 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.scorer.best_score(middle, lengths, prefix) < threshold {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
