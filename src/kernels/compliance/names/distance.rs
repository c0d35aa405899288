//! Distances of a pattern and a name, with the characters of the pattern as bits of words.

use super::pattern::{Masks, WORD};
use super::scores::{jaro, with_prefix};

/// Returns Levenshtein's distance.
pub(super) fn levenshtein(len: usize, masks: &Masks, name: &[u16]) -> usize {
    if masks.words == 1 {
        return levenshtein_of_a_word(len, masks, name);
    }
    let last_word = masks.words - 1;
    let last_bit = (len - 1) % WORD;
    let mut vertical = vec![(!0_u64, 0_u64); masks.words];
    let mut distance = len;
    for &code in name {
        // What a word passes to the next: whether the row above increases and decreases.
        let (mut increases, mut decreases) = (1, 0);
        for (word, (&matches, (vp, vn))) in masks.of(code).iter().zip(&mut vertical).enumerate() {
            let x = matches | decreases;
            let d0 = (((x & *vp).wrapping_add(*vp)) ^ *vp) | x | *vn;
            let hp = *vn | !(d0 | *vp);
            let hn = d0 & *vp;
            if word == last_word {
                distance += (hp >> last_bit & 1) as usize;
                distance -= (hn >> last_bit & 1) as usize;
            }
            let (shifted_hp, shifted_hn) = (hp << 1 | increases, hn << 1 | decreases);
            (increases, decreases) = (hp >> (WORD - 1), hn >> (WORD - 1));
            *vp = shifted_hn | !(d0 | shifted_hp);
            *vn = shifted_hp & d0;
        }
    }
    distance
}

fn levenshtein_of_a_word(len: usize, masks: &Masks, name: &[u16]) -> usize {
    let (mut vp, mut vn) = (!0_u64, 0_u64);
    let mut distance = len;
    for &code in name {
        let matches = masks.word_of(code);
        let d0 = (((matches & vp).wrapping_add(vp)) ^ vp) | matches | vn;
        let hp = vn | !(d0 | vp);
        let hn = d0 & vp;
        distance += (hp >> (len - 1) & 1) as usize;
        distance -= (hn >> (len - 1) & 1) as usize;
        let hp = hp << 1 | 1;
        vp = hn << 1 | !(d0 | hp);
        vn = hp & d0;
    }
    distance
}

/// Returns the length of the longest common subsequence.
pub(super) fn common_subsequence(masks: &Masks, name: &[u16]) -> usize {
    if masks.words == 1 {
        let mut state = !0_u64;
        for &code in name {
            state = lcs_step(state, masks.word_of(code));
        }
        return state.count_zeros() as usize;
    }
    let mut state = vec![!0_u64; masks.words];
    for &code in name {
        let mut carry = false;
        for (state, &matches) in state.iter_mut().zip(masks.of(code)) {
            let both = *state & matches;
            let (sum, carry_1) = state.overflowing_add(both);
            let (sum, carry_2) = sum.overflowing_add(u64::from(carry));
            carry = carry_1 || carry_2;
            *state = sum | (*state - both);
        }
    }
    state.iter().map(|word| word.count_zeros() as usize).sum()
}

/// A step for a word: the zeros of `state` in the end are the subsequence.
pub(super) fn lcs_step(state: u64, matches: u64) -> u64 {
    let both = state & matches;
    state.wrapping_add(both) | (state - both)
}

/// Returns the similarity of Jaro and Winkler.
pub(super) fn jaro_winkler(len: usize, masks: &Masks, name: &[u16], prefix: usize) -> f64 {
    let (m, n) = (len, name.len());
    let bound = (m.max(n) / 2).saturating_sub(1);
    // Characters after these are farther than `bound` from all of the pattern.
    let name = &name[..n.min(m + bound)];
    let [common, differing] = if masks.words == 1 && name.len() <= WORD {
        common_of_a_word(masks, name, bound)
    } else {
        common_of_words(len, masks, name, bound)
    };
    with_prefix(jaro(common, differing / 2, m, n), prefix)
}

/// Returns how many characters are in common, and how many of these are not in the same order.
fn common_of_a_word(masks: &Masks, name: &[u16], bound: usize) -> [usize; 2] {
    let mut window = if bound >= WORD - 1 { !0 } else { (2_u64 << bound) - 1 };
    let (mut of_pattern, mut of_name) = (0_u64, 0_u64);
    for (position, &code) in name.iter().enumerate() {
        let matches = masks.word_of(code) & window & !of_pattern;
        of_pattern |= matches & matches.wrapping_neg();
        of_name |= u64::from(matches != 0) << position;
        window = window << 1 | u64::from(position < bound);
    }
    let common = of_pattern.count_ones() as usize;
    let mut differing = 0;
    while of_name != 0 {
        let bit = of_pattern & of_pattern.wrapping_neg();
        let code = name[of_name.trailing_zeros() as usize];
        differing += usize::from(masks.word_of(code) & bit == 0);
        of_pattern ^= bit;
        of_name &= of_name - 1;
    }
    [common, differing]
}

/// As [`common_of_a_word`], for longer strings.
fn common_of_words(len: usize, masks: &Masks, name: &[u16], bound: usize) -> [usize; 2] {
    let mut of_pattern = vec![0_u64; masks.words];
    let mut matched: Vec<u16> = Vec::new();
    for (position, &code) in name.iter().enumerate() {
        let (first, last) = (position.saturating_sub(bound), (position + bound).min(len - 1));
        let of_code = masks.of(code);
        for word in first / WORD..=last / WORD {
            let from = first.saturating_sub(word * WORD).min(WORD - 1);
            let to = (last - word * WORD).min(WORD - 1);
            let window = !0_u64 << from & !0_u64 >> (WORD - 1 - to);
            let matches = of_code[word] & window & !of_pattern[word];
            if matches != 0 {
                of_pattern[word] |= matches & matches.wrapping_neg();
                matched.push(code);
                break;
            }
        }
    }
    let bits = of_pattern.iter().enumerate().flat_map(|(word, &bits)| {
        let mut rest = bits;
        std::iter::from_fn(move || {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            (bit != 0).then_some((word, bit))
        })
    });
    let differing = matched.iter().zip(bits).filter(|(code, (word, bit))| masks.of(**code)[*word] & bit == 0).count();
    [matched.len(), differing]
}
