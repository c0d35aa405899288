//! [`Scorer`]: how similar two names are, from 0 to 1; and the formulas that give scores and bounds of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How similar two names are, from 0 to 1, where 1 is the same. The values are those of rapidfuzz 3.14 on the names as they
/// are compared.
///
/// Lengths are in characters, and `|a|` is that of a.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scorer {
    /// Jaro's similarity, and for those above 0.7 a tenth of what is missing to 1 for each of the first four characters that
    /// are the same: Winkler, *String comparator metrics and enhanced decision rules in the Fellegi-Sunter model of record
    /// linkage* (1990). `rapidfuzz.distance.JaroWinkler.similarity`.
    JaroWinkler,
    /// 1 less Levenshtein's distance (insertions, deletions and substitutions) over the longer length.
    /// `rapidfuzz.distance.Levenshtein.normalized_similarity`.
    Edit,
    /// Twice the longest common subsequence over the sum of the lengths. `rapidfuzz.fuzz.ratio / 100`.
    Ratio,
    /// The ratio of the names with their words in order, so that "Smith John" is "John Smith".
    /// `rapidfuzz.fuzz.token_sort_ratio / 100`.
    #[default]
    TokenSort,
    /// The best ratio of the words that both names have, these with the other words of one, and with those of the other: 1
    /// where one has all words of the other. `rapidfuzz.fuzz.token_set_ratio / 100`.
    TokenSet,
}

impl Scorer {
    /// Whether words are compared in any order.
    pub(super) fn is_of_tokens(self) -> bool {
        matches!(self, Self::TokenSort | Self::TokenSet)
    }

    /// The score that a pair has at most, of which this many characters are in common. Names that have a word in common can
    /// have a better [`TokenSet`](Self::TokenSet).
    pub(super) fn best_score(self, common: usize, [m, n]: [usize; 2], prefix: usize) -> f64 {
        match self {
            Self::JaroWinkler => with_prefix(jaro(common, 0, m, n), prefix),
            Self::Edit => similarity(m.max(n) - common, m.max(n)),
            Self::Ratio | Self::TokenSort | Self::TokenSet => similarity(m + n - 2 * common, m + n),
        }
    }
}

/// The similarity of two strings by a distance and the largest that there can be.
pub(super) fn similarity(distance: usize, most: usize) -> f64 {
    1.0 - distance as f64 / most as f64
}

/// Jaro's similarity of strings of `m` and `n` characters.
pub(super) fn jaro(common: usize, transpositions: usize, m: usize, n: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let c = common as f64;
    (c / m as f64 + c / n as f64 + (common - transpositions) as f64 / c) / 3.0
}

/// Winkler's addition for a common prefix.
pub(super) fn with_prefix(similarity: f64, prefix: usize) -> f64 {
    if similarity <= 0.7 { similarity } else { similarity + prefix as f64 * 0.1 * (1.0 - similarity) }
}
