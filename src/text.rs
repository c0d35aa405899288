//! Truncation of text that is logged, stored or returned.

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

#[cfg(test)]
mod tests {
    use super::{prefix, truncated};

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
