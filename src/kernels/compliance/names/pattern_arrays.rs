//! [`PatternArrays`]: the patterns of queries as the arrays that `names.cu` reads.

use super::pattern::{COMMON, Pattern, Token, WORD};

/// Words of a `Pattern` in `names.cu`.
pub(super) const PATTERN_WORDS: usize = 8;

/// The patterns of a batch as arrays.
#[derive(Default)]
pub(super) struct PatternArrays {
    /// [`PATTERN_WORDS`] of each.
    pub(super) patterns: Vec<u64>,
    pub(super) masks: Vec<u64>,
    pub(super) rare_codes: Vec<u32>,
    pub(super) rare_masks: Vec<u64>,
    pub(super) tokens: Vec<u32>,
    pub(super) token_masks: Vec<u64>,
}

/// Two words of 32 bits, the lower first.
fn pair(low: usize, high: usize) -> u64 {
    low as u64 | (high as u64) << 32
}

impl PatternArrays {
    pub(super) fn add(&mut self, pattern: &Pattern, query: usize) {
        let (first_rare, first_token) = (self.rare_codes.len(), self.tokens.len());
        self.masks.extend(&pattern.masks.common[..COMMON]);
        self.rare_codes.extend(pattern.masks.rare_codes.iter().map(|&code| u32::from(code)));
        self.rare_masks.extend(&pattern.masks.rare);
        for &Token { id, start, len } in &pattern.tokens {
            self.tokens.push(id);
            // With the space after it, if there is one.
            let end = (start + len + 1).min(pattern.len());
            self.token_masks.push((!0 >> (WORD - (end - start))) << start);
        }
        self.patterns.extend(pattern.signature);
        self.patterns.extend([
            pattern.prefix,
            pattern.token_signature,
            pair(pattern.len(), query),
            pair(first_rare, self.rare_codes.len() - first_rare),
            pair(first_token, pattern.tokens.len()),
            0,
        ]);
    }
}
