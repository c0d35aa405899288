//! The contract over the layer that counts: around a probe that has the one place, and as the one that has it.

use tower_kernels::layers::ConcurrencyLayer;
use tower_kernels::middleware::concurrency::fair::FairLayer;
use tower_kernels::middleware::concurrency::{Adaptive, Aimd, ConcurrencySnapshot, Gradient};

use super::contract;
use crate::contract::layers::{
    Around, SECOND, adds_at_most, around, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};

fn in_use(snapshot: ConcurrencySnapshot) -> usize {
    snapshot.in_flight + snapshot.waiting
}

fn counting(limit: usize) -> Around<ConcurrencyLayer> {
    let layer = ConcurrencyLayer::new(limit);
    let gauge = layer.clone();
    gauged(layer, move || in_use(gauge.snapshot()))
}

fn by_errors() -> Around<ConcurrencyLayer<Adaptive<Aimd>>> {
    let layer = ConcurrencyLayer::adaptive(Aimd::new(1).range(1..=1));
    let gauge = layer.clone();
    gauged(layer, move || in_use(gauge.snapshot()))
}

fn by_latency() -> Around<ConcurrencyLayer<Adaptive<Gradient>>> {
    let layer = ConcurrencyLayer::adaptive(Gradient::new(8));
    let gauge = layer.clone();
    gauged(layer, move || in_use(gauge.snapshot()))
}

fn fair() -> Around<FairLayer> {
    let layer = ConcurrencyLayer::new(8).per_tenant(SECOND, 8);
    let gauge = layer.clone();
    gauged(layer, move || in_use(gauge.snapshot()))
}

contract!(concurrency, counting(8));
contract!(concurrency_with_the_one_place, counting(1));
contract!(concurrency_by_errors, by_errors());
contract!(concurrency_by_latency, by_latency());
contract!(concurrency_fair, fair());
contract!(
    concurrency_inside_another,
    around(tower::ServiceBuilder::new().layer(ConcurrencyLayer::new(1)).layer(ConcurrencyLayer::new(1)))
);

of_each_layer! {
    concurrency_as_a_layer: counting(8), 16;
    concurrency_by_errors_as_a_layer: by_errors(), 64;
    // It keeps the request, the service and a timer.
    concurrency_fair_as_a_layer: fair(), 312;
}
