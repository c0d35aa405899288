//! Writes the metrics in the format and the compression that a client accepts.

pub(crate) mod accept;
mod families;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Response};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A text format of metrics. Prometheus reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Prometheus's text format 0.0.4, which all tools read.
    #[default]
    Text,
    /// OpenMetrics 1.0.0, which also has units, exemplars and an end marker.
    OpenMetrics,
}

impl Format {
    /// Returns the value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the format that the `Accept` header of a request prefers. [`Text`](Self::Text) if there is no such
    /// header, it lists neither format, or it accepts both equally.
    ///
    /// ```
    /// use http::{HeaderMap, header::ACCEPT};
    /// use tower_kernels::middleware::metrics::Format;
    ///
    /// let mut headers = HeaderMap::new();
    /// assert_eq!(Format::accepted(&headers), Format::Text);
    /// headers.insert(ACCEPT, "application/openmetrics-text; version=1.0.0, text/plain; q=0.5".parse().unwrap());
    /// assert_eq!(Format::accepted(&headers), Format::OpenMetrics);
    /// ```
    pub fn accepted(headers: &HeaderMap) -> Self {
        accept::format(headers)
    }

    /// Converts [OpenMetrics](Self::OpenMetrics) text to this format. Metrics without values are omitted.
    ///
    /// The text may consist of several pages, such as those of several layers and of other metrics of the program. They
    /// must not have two metrics of the same name.
    ///
    /// ```
    /// use tower_kernels::layers::MetricsLayer;
    /// use tower_kernels::middleware::metrics::Format;
    ///
    /// let (front, back) = (MetricsLayer::new().prefix("front"), MetricsLayer::new().prefix("back"));
    /// let page = Format::OpenMetrics.convert(&(front.render() + &back.render()));
    /// assert_eq!(page.matches("requests_in_flight gauge").count(), 2);
    /// assert_eq!(page.matches("# EOF").count(), 1);
    /// ```
    pub fn convert(self, open_metrics: &str) -> String {
        families::convert(open_metrics, self)
    }
}

/// Returns the OpenMetrics text of the metrics that `register` adds to a registry.
pub(crate) fn render(register: impl FnOnce(&mut Registry)) -> String {
    let mut registry = Registry::default();
    register(&mut registry);
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("writing numbers to a string does not fail");
    Format::OpenMetrics.convert(&page)
}

/// Returns the response to a request for metrics, which are given as [OpenMetrics](Format::OpenMetrics) text, in the
/// format that the request's headers prefer. The text may consist of [several pages](Format::convert).
///
/// With the feature `axum` or `hyper` it is compressed with gzip if the request accepts that.
///
/// ```
/// use http::HeaderMap;
/// use tower_kernels::layers::MetricsLayer;
/// use tower_kernels::middleware::metrics::respond;
///
/// let own = "# HELP shop_open 1 if the shop is open.\n# TYPE shop_open gauge\nshop_open 1\n";
/// let page = MetricsLayer::new().render() + own;
/// let response = respond(&page, &HeaderMap::new());
/// assert!(response.body().ends_with(b"shop_open 1\n"));
/// ```
pub fn respond(open_metrics: &str, headers: &HeaderMap) -> Response<Bytes> {
    let format = Format::accepted(headers);
    let mut response = Response::new(Bytes::from(format.convert(open_metrics)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    #[cfg(any(feature = "axum", feature = "hyper"))]
    if accept::accepts_gzip(headers) {
        let encoding = HeaderValue::from_static("gzip");
        response.headers_mut().insert(http::header::CONTENT_ENCODING, encoding);
        response = response.map(|page| compress(&page));
    }
    response
}

/// Compresses a page with gzip. The fastest level already removes nine tenths of a typical page.
#[cfg(any(feature = "axum", feature = "hyper"))]
fn compress(page: &[u8]) -> Bytes {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = encoder.write_all(page).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail").into()
}

/// Splits a text at separators outside of quoted strings.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        if escaped {
            escaped = false;
            return false;
        }
        match character {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return character == separator && !quoted,
        }
        false
    })
}
