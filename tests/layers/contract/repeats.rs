//! The contract of the layers that return one response for equal requests.

use tower::Layer;
#[cfg(feature = "cache")]
use tower_kernels::layers::CacheLayer;
use tower_kernels::layers::CoalesceLayer;

use super::contract;
#[cfg(feature = "cache")]
use crate::contract::layers::around;
use crate::contract::layers::{
    Around, adds_at_most, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};
use crate::support::probe::{Probe, Request};

fn key(request: &Request) -> Option<String> {
    Some(format!("{} {:?}", request.operation, request.act))
}

/// A cache in which each request has a key of its own.
#[cfg(feature = "cache")]
fn caching() -> Around<impl Layer<Probe, Service = impl Contracted>> {
    let requests = std::sync::atomic::AtomicU64::new(0);
    around(CacheLayer::new(1 << 20, move |_: &Request| {
        Some(requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }))
}

fn coalescing() -> Around<impl Layer<Probe, Service = impl Contracted>> {
    let layer = CoalesceLayer::new(key as fn(&Request) -> Option<String>);
    let gauge = layer.clone();
    gauged(layer, move || gauge.snapshot().in_flight + gauge.snapshot().waiting)
}

/// What the contract requires of the service of a layer.
trait Contracted:
    tower::Service<
        Request,
        Error: tower_kernels::error::Classify + std::error::Error + Send,
        Response: std::fmt::Debug + Send,
        Future: Send,
    > + tower::load::Load<Metric = usize>
    + Clone
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<S> Contracted for S where
    S: tower::Service<
            Request,
            Error: tower_kernels::error::Classify + std::error::Error + Send,
            Response: std::fmt::Debug + Send,
            Future: Send,
        > + tower::load::Load<Metric = usize>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

#[cfg(feature = "cache")]
contract!(cache, caching());
contract!(coalesce, coalescing());

#[cfg(feature = "cache")]
of_each_layer! {
    // The key and the store of a miss.
    cache_as_a_layer: caching(), 64;
}
of_each_layer! {
    // A timer and the caller of a flight.
    coalesce_as_a_layer: coalescing(), 160;
}
