//! The contract of the fallback layer, with the permits of the primary service, and with those of the fallback of a service
//! whose calls all fail.

use tower::layer::layer_fn;
use tower::{Layer, Service};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::FallbackLayer;

use super::contract;
use crate::contract::layers::{
    Around, adds_at_most, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};
use crate::support::probe::{Probe, Request, probe};

/// The fallback is a probe with a permit of its own.
fn fallback() -> Around<FallbackLayer<Probe, Request>> {
    let (other, watch) = probe(1);
    let layer = FallbackLayer::new(other);
    let gauge = layer.clone();
    gauged(layer, move || watch.in_use().max(gauge.snapshot().in_flight as usize))
}

contract!(fallback_layer, fallback());

/// A primary service whose readiness fails, so that each call goes to the probe as the fallback.
fn falls_back() -> Around<impl Layer<Probe, Service = impl Falling>> {
    let (dead, watch) = probe(1);
    watch.fail_readiness(ErrorKind::Unavailable);
    let layer = layer_fn(move |probe: Probe| FallbackLayer::<_, Request>::new(probe).layer(dead.clone()));
    gauged(layer, || 0)
}

trait Falling:
    Service<Request, Response: std::fmt::Debug + Send, Error: std::fmt::Debug + Send, Future: Send>
    + Clone
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
}
impl<S> Falling for S where
    S: Service<Request, Response: std::fmt::Debug + Send, Error: std::fmt::Debug + Send, Future: Send>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The permit is taken when the future is polled and not in `poll_ready`, so only these checks apply.
mod falls_back_each_time {
    use super::*;
    use crate::support::checks;

    #[tokio::test(start_paused = true)]
    async fn a_future_dropped_unpolled_gives_the_place_back() {
        checks::a_future_dropped_unpolled_gives_the_place_back(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_dropped_after_one_poll_gives_the_place_back() {
        checks::a_future_dropped_after_one_poll_gives_the_place_back(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_gives_the_place_back_before_the_future_is_dropped() {
        checks::an_answer_gives_the_place_back_before_the_future_is_dropped(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_gives_the_place_back() {
        checks::a_failure_gives_the_place_back(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
        checks::the_service_that_was_polled_ready_is_the_one_that_is_called(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_an_answer_does_not_wake_itself() {
        checks::waiting_for_an_answer_does_not_wake_itself(falls_back()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_crosses_threads() {
        checks::it_crosses_threads(falls_back()).await;
    }
}

/// A layer that never falls back.
fn never() -> Around<FallbackLayer<Probe, Request>> {
    crate::contract::layers::around(FallbackLayer::new(probe(1).0).on([]))
}

of_each_layer! {
    // It holds the request and, after a failure, the failure, the fallback and a timer.
    fallback_as_a_layer: never(), 400;
}
