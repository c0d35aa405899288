//! The page of metrics as a client asks for it: in one of two formats, compressed or not.

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

/// The formats that metrics are written in. Prometheus reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Prometheus's text format 0.0.4, which everything reads that reads metrics at all.
    #[default]
    Text,
    /// OpenMetrics 1.0.0, which has units and says where the page ends.
    OpenMetrics,
}

impl Format {
    /// Its `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that a request with these headers prefers by its `Accept`: [`Text`](Self::Text) where it has none, or
    /// names neither format, or takes both alike.
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

    /// Writes everything that is registered. A metric of which there are no values is left out.
    ///
    /// # Errors
    /// Where a metric of the registry fails to write itself.
    pub fn encode(self, registry: &Registry) -> Result<String, Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, registry)?;
        Ok(families::write(&page, self))
    }
}

/// The response to a request for the metrics in `registry`, in the format that the request's headers ask for.
///
/// It is compressed with gzip where the request takes that, with the features `axum` and `hyper`.
///
/// # Errors
/// Where a metric of the registry fails to write itself.
pub fn respond(registry: &Registry, headers: &HeaderMap) -> Result<Response<Bytes>, Error> {
    let format = Format::accepted(headers);
    let mut response = Response::new(Bytes::from(format.encode(registry)?));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    #[cfg(any(feature = "axum", feature = "hyper"))]
    if accept::takes_gzip(headers) {
        gzip::compress(&mut response);
    }
    Ok(response)
}
