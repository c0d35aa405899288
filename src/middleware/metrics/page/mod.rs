//! Writes the metrics in the format and the compression that a client accepts.

mod accept;
mod families;
#[cfg(any(feature = "axum", feature = "hyper"))]
mod gzip;

use std::fmt::Error;

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

    /// Encodes the metrics in a registry. Metrics without values are omitted.
    ///
    /// # Errors
    /// If a metric of the registry fails to encode.
    pub fn encode(self, registry: &Registry) -> Result<String, Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, registry)?;
        Ok(families::write(&page, self))
    }
}

/// Returns the response to a request for the metrics in `registry`, in the format that the request's headers prefer.
///
/// With the feature `axum` or `hyper` it is compressed with gzip if the request accepts that.
///
/// # Errors
/// If a metric of the registry fails to encode.
pub fn respond(registry: &Registry, headers: &HeaderMap) -> Result<Response<Bytes>, Error> {
    let format = Format::accepted(headers);
    let mut response = Response::new(Bytes::from(format.encode(registry)?));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    #[cfg(any(feature = "axum", feature = "hyper"))]
    if accept::accepts_gzip(headers) {
        gzip::compress(&mut response);
    }
    Ok(response)
}
