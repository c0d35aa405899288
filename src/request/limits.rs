//! Limits on the number and length of items in a request, which cost time or memory however few bytes they have on the
//! wire.
//!
//! Every server (REST, gRPC, actix) and in-process callers have these limits, and check them before they collect the
//! items. The total number of bytes is limited by each server's maximum body size.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::RequestContext;

/// Maximum number of tensors in a request or response, and of requested outputs. The kernels of the catalogue have at
/// most a dozen fields.
pub const MAX_TENSORS: usize = 256;

/// Maximum number of dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Maximum number of bytes in a name of a tenant, request, kernel or tensor.
pub const MAX_NAME_BYTES: usize = 128;

/// Maximum number of bytes in a `tracestate` header that is passed on. The W3C requires at least 512; a longer one is
/// dropped.
pub const MAX_TRACE_STATE_BYTES: usize = 512;

/// Maximum number of bytes of the field of an [`InvalidInput`](crate::service::InvalidInput), which can repeat client
/// input.
pub(crate) const MAX_FIELD_BYTES: usize = 256;

/// Maximum number of bytes of the reason of an [`InvalidInput`](crate::service::InvalidInput), which can repeat client
/// input.
pub(crate) const MAX_REASON_BYTES: usize = 1024;

/// Why a name is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidName {
    /// It has no characters.
    Empty,
    /// It has more than [`MAX_NAME_BYTES`].
    TooLong,
    /// It contains a control character or an invisible one.
    Invisible,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_NAME_BYTES} bytes"),
            Self::Invisible => f.write_str("it contains a control character or an invisible one"),
        }
    }
}

impl std::error::Error for InvalidName {}

/// Checks a name that a client has chosen: 1 to [`MAX_NAME_BYTES`] bytes of visible characters and spaces.
///
/// Names are stored, logged and displayed, so they must not contain line breaks, invisible characters, or marks that
/// change the text direction.
///
/// # Errors
/// What is wrong; the error does not repeat the name.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong);
    }
    let visible = name.bytes().all(|byte| matches!(byte, b' '..=b'~')) || name.chars().all(is_visible);
    if visible { Ok(()) } else { Err(InvalidName::Invisible) }
}

/// Returns the tenant that a layer may use as a key: the request's tenant, if its name has at most [`MAX_NAME_BYTES`].
///
/// Servers of this crate check names, but layers are also used in other programs. Layers limit the number of tenants
/// that they store and not the length of their names, so they treat requests of a tenant with a longer name as requests
/// without a tenant.
#[inline]
pub fn tenant_key<R: RequestContext + ?Sized>(request: &R) -> Option<&Arc<str>> {
    request.tenant().filter(|tenant| tenant.len() <= MAX_NAME_BYTES)
}

/// Truncates a text to [`MAX_NAME_BYTES`], for a log or a trace.
#[inline]
pub fn name_prefix(text: &str) -> &str {
    crate::text::prefix(text, MAX_NAME_BYTES)
}

fn is_visible(char: char) -> bool {
    // Soft hyphen, zero-width characters, marks of direction, invisible operators, fillers, byte order mark,
    // annotations, and tags.
    let format = matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !char.is_control() && !format && (char == ' ' || !char.is_whitespace())
}

/// Returns the index of the first name that is a duplicate.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn first_duplicate<'a>(names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let mut seen = HashSet::new();
    names.enumerate().find(|(_, name)| !seen.insert(*name)).map(|(index, _)| index)
}

/// Deserializes a sequence of at most `MAX` items, and fails at the first item above that. For
/// `#[serde(deserialize_with)]`.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct AtMost<T, const MAX: usize>(std::marker::PhantomData<T>);

    impl<'de, T: serde::Deserialize<'de>, const MAX: usize> serde::de::Visitor<'de> for AtMost<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a sequence of at most {MAX}")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while read.len() < MAX {
                match items.next_element()? {
                    Some(item) => read.push(item),
                    None => return Ok(read),
                }
            }
            match items.next_element::<serde::de::IgnoredAny>()? {
                Some(_) => Err(serde::de::Error::custom(format_args!("there are more than {MAX} items, the maximum"))),
                None => Ok(read),
            }
        }
    }

    deserializer.deserialize_seq(AtMost::<T, MAX>(std::marker::PhantomData))
}

#[cfg(all(test, feature = "hyper"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_visible() {
        for good in ["a", "acme", "made up 7", "graph/page-rank", "Bäckerei Süß", "東京", &"x".repeat(128)] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
        for (bad, error) in [
            ("", InvalidName::Empty),
            (&*"x".repeat(129), InvalidName::TooLong),
            (&*"ü".repeat(65), InvalidName::TooLong),
            ("a\nb", InvalidName::Invisible),
            ("a\u{7f}", InvalidName::Invisible),
            ("a\u{85}b", InvalidName::Invisible),
            ("a\u{a0}b", InvalidName::Invisible),
            ("ac\u{200b}me", InvalidName::Invisible),
            ("\u{202e}emca", InvalidName::Invisible),
            ("a\u{e0041}", InvalidName::Invisible),
        ] {
            assert_eq!(check_name(bad), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn a_sequence_ends_at_its_limit() {
        let read = |json: &str| at_most::<_, u8, 2>(&mut serde_json::Deserializer::from_str(json));
        assert_eq!(read("[1, 2]").unwrap(), [1, 2]);
        assert!(read("[1, 2, 3]").unwrap_err().to_string().contains("more than 2"));
        // Input after the limit is not parsed.
        assert!(read("[1, 2, 3, nonsense").unwrap_err().to_string().contains("more than 2"));
    }
}
