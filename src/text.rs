//! Truncation of text that is logged, stored or returned.

use std::fmt;

/// The longest prefix of `text` of at most `max_bytes` that ends between two characters.
#[inline]
pub(crate) fn prefix(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// `text`, cut to at most `max_bytes` and followed by an ellipsis if it is longer.
pub(crate) fn truncated(mut text: String, max_bytes: usize) -> String {
    let end = prefix(&text, max_bytes).len();
    if end < text.len() {
        text.truncate(end);
        text.push('…');
        // The memory of a text that a client has made long is returned.
        text.shrink_to_fit();
    }
    text
}

/// The most items that [`list`] writes.
const MAX_LISTED: usize = 8;

/// Writes the first 8 items with commas between them, and how many more there are.
pub(crate) fn list<T: fmt::Display>(items: impl ExactSizeIterator<Item = T>) -> String {
    let more = items.len().saturating_sub(MAX_LISTED);
    let mut listed: Vec<String> = items.take(MAX_LISTED).map(|item| item.to_string()).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{list, prefix, truncated};

    #[test]
    fn long_lists_end_with_a_count() {
        assert_eq!((list(0..0_u8), list(7..8), list(0..8)), ("".into(), "7".into(), "0, 1, 2, 3, 4, 5, 6, 7".into()));
        assert_eq!(list(0..64), "0, 1, 2, 3, 4, 5, 6, 7, 56 more");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(prefix("añb", 4), "añb");
        assert_eq!(prefix("añb", 3), "añ");
        assert_eq!(prefix("añb", 2), "a");
        assert_eq!(prefix("ñ", 1), "");
        assert_eq!(prefix("ñ", 0), "");
        assert_eq!(truncated("äöü".to_owned(), 6), "äöü");
        assert_eq!(truncated("äöü".to_owned(), 3), "ä…");
        assert!(truncated("x".repeat(1 << 20), 8).capacity() < 64);
    }
}
