//! Detects the format of a request's body from its headers.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Problem;
use crate::error::ErrorKind;

/// Header with the length of the JSON before tensors.
pub(crate) const HEAD_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Content type of tensors.
pub(crate) const OCTETS: &str = "application/octet-stream";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// JSON of this many bytes, followed by tensors.
    Tensors(usize),
}

impl Form {
    /// # Errors
    /// 415 if it is neither or is compressed; 400 if it is tensors and the length of the head is missing.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(encoding) = headers.get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Problem::unsupported_media_type("compressed bodies are not read here; send it without"));
        }
        match headers.get(CONTENT_TYPE) {
            // What nearly all clients send needs no parsing.
            Some(value) if value == "application/json" || is(value, is_json) => Ok(Self::Json),
            Some(value) if is(value, is_octets) => head_length(headers).map(Self::Tensors),
            Some(value) => Err(Problem::unsupported_media_type(format!(
                "the body is {}; send JSON with the header content-type: application/json, or tensors with \
                 application/octet-stream",
                value.as_bytes().escape_ascii()
            ))),
            // Triton's client sends no content type but this header.
            None if headers.contains_key(HEAD_LENGTH) => head_length(headers).map(Self::Tensors),
            None => Err(Problem::unsupported_media_type(
                "the header content-type is missing; it is to be application/json, or application/octet-stream for tensors",
            )),
        }
    }
}

/// Returns the length of the JSON before tensors; `None` if all of the body is JSON.
///
/// # Errors
/// 400 if it is no number, or there are several.
pub(super) fn optional_head_length(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    if headers.contains_key(HEAD_LENGTH) { head_length(headers).map(Some) } else { Ok(None) }
}

fn head_length(headers: &HeaderMap) -> Result<usize, Problem> {
    let mut values = headers.get_all(HEAD_LENGTH).iter();
    let problem = |why| Err(Problem::new(ErrorKind::InvalidArgument, why).field(HEAD_LENGTH.as_str()));
    match (values.next(), values.next()) {
        (Some(value), None) => match value.to_str().ok().and_then(number) {
            Some(length) => Ok(length),
            None => problem(format!("the header {HEAD_LENGTH} is no number of bytes")),
        },
        (Some(_), Some(_)) => problem(format!("the header {HEAD_LENGTH} is there more than once")),
        (None, _) => {
            problem(format!("the header {HEAD_LENGTH} is missing; it says how long the JSON before the tensors is"))
        }
    }
}

/// Parses digits: `parse` alone would accept a sign.
fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the type is `application` with such a subtype, and any parameters.
fn is(content_type: &HeaderValue, subtype: impl FnOnce(&str) -> bool) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.split_once('/').is_some_and(|(kind, name)| kind.eq_ignore_ascii_case("application") && subtype(name))
}

/// Whether a subtype is `json` or ends in `+json`.
fn is_json(subtype: &str) -> bool {
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, suffix)| suffix);
    suffix.eq_ignore_ascii_case("json")
}

fn is_octets(subtype: &str) -> bool {
    subtype.eq_ignore_ascii_case("octet-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Result<Form, Problem> {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(pair) {
            map.append(name, value);
        }
        Form::of(&map)
    }

    #[test]
    fn a_body_is_known_by_its_type() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.acme+json ;v=1"] {
            assert_eq!(of(&[("content-type", yes)]).unwrap(), Form::Json, "{yes}");
        }
        for no in ["", "json", "text/json", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert!(of(&[("content-type", no)]).is_err(), "{no}");
        }
        let length = ("inference-header-content-length", "12");
        for yes in ["application/octet-stream", "Application/Octet-Stream; v=1"] {
            assert_eq!(of(&[("content-type", yes), length]).unwrap(), Form::Tensors(12), "{yes}");
        }
        assert_eq!(of(&[length]).unwrap(), Form::Tensors(12));
        assert_eq!(of(&[("content-type", "application/json"), length]).unwrap(), Form::Json);
        assert!(of(&[length, ("content-encoding", "gzip")]).is_err());
    }

    #[test]
    fn the_length_of_the_head_is_one_number() {
        let octets = ("content-type", "application/octet-stream");
        assert!(of(&[octets]).is_err());
        for bad in ["", "+1", "-1", "1.0", "0x10", "1, 1", "99999999999999999999999"] {
            assert!(of(&[octets, ("inference-header-content-length", bad)]).is_err(), "{bad:?}");
        }
        let twice = ("inference-header-content-length", "1");
        assert!(of(&[octets, twice, twice]).is_err());
    }
}
