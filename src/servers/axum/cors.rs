//! CORS: what scripts on pages of other origins may do.

use std::time::Duration;

use http::Method;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

use crate::request::request_id::RequestId;
use crate::servers::http::{HEAD_LENGTH, all_methods};

/// Lets in every origin: a browser sends no credentials of its own accord to an origin that is let in by `*`.
///
/// The headers that a script wants to send are mirrored, as `*` stands for all but `authorization`.
pub(super) fn layer() -> CorsLayer {
    let methods = all_methods().into_iter().filter_map(|method| method.parse::<Method>().ok());
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::list(methods))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([RequestId::HEADER, RETRY_AFTER, WWW_AUTHENTICATE, ALLOW, HEAD_LENGTH])
        .max_age(Duration::from_secs(3600))
}
