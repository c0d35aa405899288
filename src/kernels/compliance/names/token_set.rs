//! The score of [`Scorer::TokenSet`](super::Scorer::TokenSet).

use super::distance::{common_subsequence, lcs_step};
use super::list::NameList;
use super::pattern::{Masks, Pattern, Token};
use super::scores::similarity;

/// Returns the score of a pattern and a name of the list.
pub(super) fn token_set(pattern: &Pattern, list: &NameList, name: usize) -> f64 {
    let codes = list.sorted.codes(name);
    let tokens = &list.tokens[list.token_offsets[name] as usize..list.token_offsets[name + 1] as usize];
    let is_shared = |token: &Token| tokens.contains(&token.id);
    let (mut shared_tokens, mut shared_letters) = (0, 0);
    for token in pattern.tokens.iter().filter(|token| is_shared(token)) {
        shared_tokens += 1;
        shared_letters += token.len;
    }
    let shared_length = shared_letters + usize::saturating_sub(shared_tokens, 1);

    // The words that only one of the two has, joined.
    let space = list.alphabet.code(' ');
    let mut of_name: Vec<u16> = Vec::with_capacity(codes.len());
    for (index, word) in codes.split(|&code| code == space).enumerate() {
        let is_repeated = index > 0 && tokens[index] == tokens[index - 1];
        if !is_repeated && !pattern.tokens.iter().any(|token| token.id == tokens[index]) {
            if !of_name.is_empty() {
                of_name.push(space);
            }
            of_name.extend(word);
        }
    }
    let mut of_pattern = Vec::new();
    for token in pattern.tokens.iter().filter(|token| !is_shared(token)) {
        if !of_pattern.is_empty() {
            of_pattern.push(space);
        }
        of_pattern.extend(&pattern.codes[token.start..token.start + token.len]);
    }
    let (m, n) = (of_pattern.len(), of_name.len());
    if shared_tokens > 0 && (m == 0 || n == 0) {
        return 1.0;
    }
    let common = if shared_tokens == 0 {
        common_subsequence(&pattern.masks, &of_name)
    } else if pattern.masks.words == 1 {
        let kept = kept_mask(pattern, is_shared);
        let step = |state, &code: &u16| lcs_step(state, pattern.masks.word_of(code) & kept);
        of_name.iter().fold(!0, step).count_zeros() as usize
    } else {
        common_subsequence(&Masks::new(&of_pattern), &of_name)
    };
    let gap = usize::from(shared_tokens > 0);
    let (a, b) = (shared_length + gap + m, shared_length + gap + n);
    let whole = similarity(m + n - 2 * common, a + b);
    if shared_tokens == 0 {
        return whole;
    }
    whole.max(similarity(gap + m, shared_length + a)).max(similarity(gap + n, shared_length + b))
}

/// The characters of the words that the name does not have, and a space between two. What is not among them matches
/// nothing, which is as good as not there.
fn kept_mask(pattern: &Pattern, is_shared: impl Fn(&Token) -> bool) -> u64 {
    let mut kept = 0_u64;
    let mut after_kept = None;
    for token in pattern.tokens.iter().filter(|token| !is_shared(token)) {
        if let Some(space) = after_kept {
            kept |= 1_u64 << space;
        }
        kept |= (!0_u64 >> (64 - token.len)) << token.start;
        after_kept = Some(token.start + token.len);
    }
    kept
}
