//! A gRPC service keeps its name beneath layers, so that it can be added to a `tonic` server with layers of its own.

use tonic::server::NamedService;
use tower_service::Service;

#[cfg(feature = "auth")]
use super::authenticate::Authenticate;
use super::batch::{Answers, Batch, Join};
#[cfg(feature = "cache")]
use super::cache::Cache;
use super::circuit_breaker::CircuitBreaker;
use super::classify::{Classified, ClassifiedRequests};
use super::coalesce::Coalesce;
use super::concurrency::ConcurrencyLimit;
use super::concurrency::fair::Fair;
use super::error_response::Answer;
use super::fallback::Fallback;
use super::hedge::Hedge;
use super::load_shed::LoadShed;
use super::metrics::Metrics;
use super::optional::Optional;
use super::priority_queue::PriorityQueue;
use super::rate_limit::{RateLimiter, Wait};
use super::retry::Retry;
use super::timeout::Timeout;
use super::tracing::Tracing;

macro_rules! forward {
    ($($layered:ident<S $(, $parameter:ident)*>),* $(,)?) => {$(
        impl<S: NamedService $(, $parameter)*> NamedService for $layered<S $(, $parameter)*> {
            const NAME: &'static str = S::NAME;
        }
    )*};
}

forward!(
    Answer<S, P>,
    CircuitBreaker<S, C>,
    Classified<S>,
    ClassifiedRequests<S, C>,
    Coalesce<S, P, L>,
    ConcurrencyLimit<S, L>,
    Fair<S, L>,
    Hedge<S, P>,
    LoadShed<S, P>,
    Metrics<S>,
    Optional<S, B>,
    PriorityQueue<S>,
    RateLimiter<S, L>,
    Retry<S, P>,
    Timeout<S>,
    Tracing<S>,
    Wait<S, L>,
);
impl<S: NamedService + Service<R>, F, R, C> NamedService for Fallback<S, F, R, C> {
    const NAME: &'static str = S::NAME;
}

impl<S, R, J> NamedService for Batch<S, R, J>
where
    S: NamedService + Service<Vec<R>, Response: Answers<Error = S::Error>>,
    J: Join<R>,
{
    const NAME: &'static str = S::NAME;
}

#[cfg(feature = "auth")]
forward!(Authenticate<S, V>);
#[cfg(feature = "cache")]
forward!(Cache<S, P, L>);
