//! Truncates text between characters.

/// Returns the longest prefix of `text` that has at most `max_bytes` bytes.
pub(crate) fn prefix(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// Truncates `text` to `max_bytes` and appends `…`, if it is longer than that.
pub(crate) fn truncate(mut text: String, max_bytes: usize) -> String {
    let end = prefix(&text, max_bytes).len();
    if end < text.len() {
        text.truncate(end);
        text.push('…');
        // Clients can send long texts; do not keep the memory of what was cut.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_truncated_between_characters() {
        assert_eq!(truncate("äöü".to_owned(), 6), "äöü");
        assert_eq!(truncate("äöü".to_owned(), 3), "ä…");
        assert_eq!(prefix("äöü", 5), "äö");
        assert_eq!(prefix("ä", 1), "");
        assert!(truncate("x".repeat(1 << 20), 8).capacity() < 64);
    }
}
