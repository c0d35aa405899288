//! A gRPC service keeps its name beneath layers, so that it can be added to a `tonic` server with layers of its own.

use tonic::server::NamedService;

use super::answer::Answer;
#[cfg(feature = "auth")]
use super::authenticate::Authenticate;
use super::metrics::Metrics;
use super::rate_limit::{RateLimiter, Wait};
use super::timeout::Timeout;
use super::tracing::Tracing;

macro_rules! forward {
    ($($layered:ident<S $(, $parameter:ident)?>),* $(,)?) => {$(
        impl<S: NamedService $(, $parameter)?> NamedService for $layered<S $(, $parameter)?> {
            const NAME: &'static str = S::NAME;
        }
    )*};
}

forward!(Answer<S, P>, Metrics<S>, RateLimiter<S, L>, Timeout<S>, Tracing<S>, Wait<S, L>);
#[cfg(feature = "auth")]
forward!(Authenticate<S, V>);
