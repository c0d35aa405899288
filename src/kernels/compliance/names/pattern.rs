//! [`Pattern`]: a name of a query, prepared for comparison with the names of a list.
//!
//! The characters of a pattern are bits of words, so that a step of a comparison takes one character of the other name and
//! all of the pattern: Myers, *A fast bit-vector algorithm for approximate string matching based on dynamic programming*
//! (1999), and Hyyrö, *A bit-vector algorithm for computing Levenshtein and Damerau edit distances* (2003) and *Bit-parallel
//! LCS-length computation revisited* (2004).

use super::form::{PATTERN_PAD, UNKNOWN, prefix, signature, token_signature};
use super::list::{NameList, UNKNOWN_ID};
use super::normalize::{sort_tokens, unique_tokens};
use super::scores::Scorer;

/// Codes of characters whose masks are in a table.
pub(super) const COMMON: usize = 64;
/// Characters of a word of bits.
pub(super) const WORD: usize = 64;

/// A word of a pattern.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    /// Its number in the list.
    pub(super) id: u32,
    /// Where it starts, and how many characters it has.
    pub(super) start: usize,
    pub(super) len: usize,
}

/// A name of a query, in the form that the scorer compares.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) codes: Vec<u16>,
    pub(super) signature: [u64; 2],
    pub(super) prefix: u64,
    pub(super) masks: Masks,
    /// For [`Scorer::TokenSet`]: its words.
    pub(super) tokens: Vec<Token>,
    pub(super) token_signature: u64,
}

impl Pattern {
    /// Prepares a name, as it is compared.
    pub(super) fn new(name: &str, list: &NameList, scorer: Scorer) -> Self {
        let form = match scorer {
            Scorer::TokenSort => sort_tokens(name),
            Scorer::TokenSet => unique_tokens(name),
            _ => name.to_owned(),
        };
        let codes: Vec<u16> = form.chars().map(|character| list.alphabet.code(character)).collect();
        let mut pattern = Self {
            signature: signature(&codes),
            prefix: prefix(&codes, PATTERN_PAD),
            masks: Masks::new(&codes),
            codes,
            tokens: Vec::new(),
            token_signature: 0,
        };
        if scorer == Scorer::TokenSet {
            let mut start = 0;
            for word in form.split(' ') {
                let len = word.chars().count();
                let id = list.token_ids.get(word).copied().unwrap_or(UNKNOWN_ID);
                if id != UNKNOWN_ID {
                    pattern.token_signature |= token_signature(id);
                }
                pattern.tokens.push(Token { id, start, len });
                start += len + 1;
            }
        }
        pattern
    }

    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }
}

/// Where each character is in a string: a bit for each position.
#[derive(Debug, Clone)]
pub(super) struct Masks {
    /// How many words there are for a character.
    pub(super) words: usize,
    /// Those of the codes below [`COMMON`].
    pub(super) common: Vec<u64>,
    /// Other codes, ascending, and their words.
    pub(super) rare_codes: Vec<u16>,
    pub(super) rare: Vec<u64>,
    zeros: Vec<u64>,
}

impl Masks {
    /// Finds the characters of a string.
    pub(super) fn new(codes: &[u16]) -> Self {
        let words = codes.len().div_ceil(WORD).max(1);
        let is_rare = |code: &u16| usize::from(*code) >= COMMON && *code != UNKNOWN;
        let mut rare_codes: Vec<u16> = codes.iter().copied().filter(is_rare).collect();
        rare_codes.sort_unstable();
        rare_codes.dedup();
        let mut masks = Self {
            words,
            common: vec![0; COMMON * words],
            rare: vec![0; rare_codes.len() * words],
            rare_codes,
            zeros: vec![0; words],
        };
        for (position, &code) in codes.iter().enumerate() {
            let (word, bit) = (position / WORD, 1 << (position % WORD));
            if usize::from(code) < COMMON {
                masks.common[usize::from(code) * words + word] |= bit;
            } else if let Ok(index) = masks.rare_codes.binary_search(&code) {
                masks.rare[index * words + word] |= bit;
            }
        }
        masks
    }

    /// Returns where a character is.
    pub(super) fn of(&self, code: u16) -> &[u64] {
        let (masks, index) = if usize::from(code) < COMMON {
            (&self.common, usize::from(code))
        } else {
            match self.rare_codes.binary_search(&code) {
                Ok(index) => (&self.rare, index),
                Err(_) => return &self.zeros,
            }
        };
        &masks[index * self.words..(index + 1) * self.words]
    }

    /// As [`of`](Self::of), of a string of one word.
    #[inline]
    pub(super) fn word_of(&self, code: u16) -> u64 {
        if usize::from(code) < COMMON { self.common[usize::from(code)] } else { self.of(code)[0] }
    }
}
