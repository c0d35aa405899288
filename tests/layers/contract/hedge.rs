//! The contract of the hedge layer. The inner service has one permit, so a second attempt waits for readiness.

use std::time::Duration;

use tower_kernels::layers::HedgeLayer;
use tower_kernels::middleware::hedge::Budget;

use super::contract;
use crate::contract::layers::{
    Around, adds_at_most, around, errors_keep_their_meaning, load_is_passed_on, of_each_layer,
};
use crate::support::probe::Request;

fn hedge(after: Duration) -> Around<HedgeLayer<impl Fn(&Request) -> bool + Send + Sync>> {
    around(HedgeLayer::new(|_: &Request| true).after(after))
}

fn learning() -> Around<HedgeLayer<impl Fn(&Request) -> bool + Send + Sync>> {
    around(HedgeLayer::new(|_: &Request| true).budget(Budget::new(0.1, 1)))
}

contract!(hedge_layer, hedge(Duration::from_secs(1)));
// The second attempt is due at the first `Pending`.
contract!(hedge_layer_at_once, hedge(Duration::ZERO));
contract!(hedge_layer_that_learns, learning());

of_each_layer! {
    // It holds the request and a timer, or the second attempt.
    hedge_as_a_layer: learning(), 400;
}
