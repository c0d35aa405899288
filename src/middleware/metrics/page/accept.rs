//! Parses `Accept` and `Accept-Encoding`, after RFC 9110, sections 12.5.1 and 12.5.3.

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::{Format, split_unquoted};

/// How specific a media range of `Accept` is. The most specific range that matches a format decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Anything,
    Type,
    Subtype,
    Version,
}

/// Returns the format that `Accept` prefers.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let ranges: Vec<_> = elements(headers, ACCEPT).filter_map(Element::parse).collect();
    let text = preference(&ranges, "text/plain", "0.0.4");
    let open_metrics = preference(&ranges, "application/openmetrics-text", "1.0.0");
    if open_metrics > text { Format::OpenMetrics } else { Format::Text }
}

/// Returns the quality of a media type and the specificity of the range that matches it, or `None` if it is not
/// acceptable.
fn preference(ranges: &[Element], media_type: &str, version: &str) -> Option<(f32, Specificity)> {
    let matching = ranges.iter().filter_map(|range| Some((range.specificity(media_type, version)?, range.quality)));
    // Of equally specific ranges the one with the highest quality counts.
    let (specificity, quality) = matching.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))?;
    (quality > 0.0).then_some((quality, specificity))
}

/// Returns whether gzip is acceptable, with at least the quality of no compression.
#[cfg_attr(not(any(feature = "axum", feature = "hyper")), allow(dead_code, reason = "there is no gzip"))]
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings: Vec<_> = elements(headers, ACCEPT_ENCODING).filter_map(Element::parse).collect();
    let quality = |names: &[&str]| {
        let named = codings.iter().filter(|coding| names.iter().any(|name| coding.value.eq_ignore_ascii_case(name)));
        named.map(|coding| coding.quality).max_by(f32::total_cmp)
    };
    let gzip = quality(&["gzip", "x-gzip"]).or_else(|| quality(&["*"])).unwrap_or(0.0);
    gzip > 0.0 && quality(&["identity"]).is_none_or(|identity| gzip >= identity)
}

/// An element of the list in such a header.
#[derive(Debug)]
struct Element<'a> {
    value: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> Element<'a> {
    /// Returns `None` if the element has an invalid quality.
    fn parse(element: &'a str) -> Option<Self> {
        let mut parts = split_unquoted(element, ';').map(str::trim);
        let mut this = Self { value: parts.next()?, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                this.quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
            } else if name.eq_ignore_ascii_case("version") {
                this.version = Some(value);
            }
        }
        (!this.value.is_empty()).then_some(this)
    }

    /// Returns how specifically the media range matches a type, if it does.
    fn specificity(&self, media_type: &str, version: &str) -> Option<Specificity> {
        if self.value == "*/*" {
            Some(Specificity::Anything)
        } else if self.value.eq_ignore_ascii_case(media_type) {
            match self.version {
                None => Some(Specificity::Subtype),
                Some(own) => (own == version).then_some(Specificity::Version),
            }
        } else {
            let (kind, _) = media_type.split_once('/')?;
            let own_kind = self.value.strip_suffix("/*")?;
            own_kind.eq_ignore_ascii_case(kind).then_some(Specificity::Type)
        }
    }
}

/// Returns the elements of all headers of this name. Headers that are not text are ignored.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(name).into_iter().map(HeaderValue::to_str).filter_map(Result::ok);
    lists.flat_map(|list| split_unquoted(list, ',')).map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        format(&headers)
    }

    #[test]
    fn the_format_is_the_one_that_accept_prefers() {
        for value in [
            // Prometheus 2.42 and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
             version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
             application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text, */*",
            "application/openmetrics-text, text/*;q=0.9",
            "application/*, text/plain;q=0.5",
            "text/plain;q=0, */*",
            "text/html;title=\"a, text/plain;q=1\", application/openmetrics-text",
        ] {
            assert_eq!(accept(&[value]), Format::OpenMetrics, "{value}");
        }
        for value in [
            "",
            "*/*",
            "text/plain",
            "text/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.9",
            "application/openmetrics-text;version=1.0.0, text/plain;version=0.0.4",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
            "application/openmetrics-text;q=0, */*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=nan",
            "application/openmetrics-text;q=",
            // Neither format is accepted: the response is in the default format.
            "application/json",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            ";;;=,,\"",
        ] {
            assert_eq!(accept(&[value]), Format::Text, "{value}");
        }
        assert_eq!(accept(&[]), Format::Text);
        assert_eq!(accept(&["text/plain;q=0.3", "application/openmetrics-text;q=0.5"]), Format::OpenMetrics);
    }

    #[test]
    fn gzip_is_used_if_it_is_accepted() {
        for (value, accepted) in [
            ("gzip", true),
            ("GZIP;q=0.5", true),
            ("x-gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("*", true),
            ("br, zstd, gzip", true),
            ("gzip, identity", true),
            ("", false),
            ("identity", false),
            ("br, zstd", false),
            ("gzip;q=0", false),
            ("gzip;q=0.0, *", false),
            ("*;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("gzip;q=many", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), accepted, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
