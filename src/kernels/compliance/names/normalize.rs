//! How names are written before they are compared.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// Returns a name without case, accents and punctuation: `"O'Brien,  JOSÉ"` is `"o brien jose"`.
///
/// In this order:
///
/// 1. compatibility decomposition (NFKD of Unicode), so that `é` is `e` and an accent, and `ﬁ` is `f` and `i`;
/// 2. without the combining characters, those of a canonical combining class other than 0: accents, points of Hebrew,
///    vowel marks of Arabic;
/// 3. each character in upper case and then in lower case, which folds case as far as it matters for names: `ß` is `ss`, and
///    `ς` is `σ`;
/// 4. whatever is neither alphabetic nor numeric becomes a space, spaces at the ends are left out, and one stays of several.
///
/// ```
/// use tower_kernels::kernels::compliance::names::normalize;
///
/// assert_eq!(normalize("MÜLLER-Straße, Dr. Łukasz"), "muller strasse dr łukasz");
/// ```
pub fn normalize(name: &str) -> String {
    let mut normalized = String::with_capacity(name.len());
    let mut ends_word = false;
    let letters = name.nfkd().filter(|&character| canonical_combining_class(character) == 0);
    for character in letters.flat_map(char::to_uppercase).flat_map(char::to_lowercase) {
        if !character.is_alphanumeric() {
            ends_word = true;
            continue;
        }
        if ends_word && !normalized.is_empty() {
            normalized.push(' ');
        }
        ends_word = false;
        normalized.push(character);
    }
    normalized
}

/// Returns the words of a name in their order as text, with one space between two.
pub(super) fn sort_tokens(name: &str) -> String {
    let mut tokens: Vec<&str> = name.split_whitespace().collect();
    tokens.sort_unstable();
    tokens.join(" ")
}

/// As [`sort_tokens`], each different word once.
pub(super) fn unique_tokens(name: &str) -> String {
    let mut tokens: Vec<&str> = name.split_whitespace().collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_case_accents_and_punctuation() {
        for (name, expected) in [
            ("José  Ñandú", "jose nandu"),
            ("  (O'Brien)  ", "o brien"),
            ("Ελένης", "ελενησ"),
            ("Ёлкин", "елкин"),
            ("İstanbul ﬁnans", "istanbul finans"),
            ("مُحَمَّد", "محمد"),
            ("株式会社・日本", "株式会社 日本"),
            ("Acme_Ltd\u{a0}№ 7½", "acme ltd no 71 2"),
            ("हिन्दी", "हिनदी"),
            ("--- !", ""),
        ] {
            assert_eq!(normalize(name), expected, "{name}");
            assert_eq!(normalize(&normalize(name)), expected, "{name} twice");
        }
    }

    #[test]
    fn tokens_are_sorted() {
        assert_eq!(sort_tokens(" smith john\tadam john"), "adam john john smith");
        assert_eq!(unique_tokens(" smith john\tadam john"), "adam john smith");
    }
}
