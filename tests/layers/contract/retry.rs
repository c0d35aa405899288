//! The contract of the retry layer, around calls that are not retried and around some that are.

use tower_kernels::error::{ErrorKind, ErrorKinds};
use tower_kernels::layers::RetryLayer;

use super::contract;
use crate::contract::layers::{
    Around, SECOND, adds_at_most, errors_keep_their_meaning, gauged, load_is_passed_on, of_each_layer,
};
use crate::support::probe::Request;

fn retry(on: impl IntoIterator<Item = ErrorKind>) -> Around<RetryLayer<impl Fn(&Request) -> bool + Send + Sync>> {
    // The retry-after of the probe's errors is 7 seconds.
    let layer = RetryLayer::new(|_: &Request| true)
        .on(on.into_iter().collect::<ErrorKinds>())
        .backoff(SECOND / 100, SECOND * 10);
    let gauge = layer.clone();
    gauged(layer, move || gauge.snapshot().waiting as usize)
}

contract!(retry_layer, retry([ErrorKind::Unavailable]));
// A request that fails is retried twice.
contract!(retry_layer_that_retries, retry(ErrorKind::ALL));

of_each_layer! {
    // It holds the request and, after a failure, the failure and a timer.
    retry_as_a_layer: retry([ErrorKind::Unavailable]), 352;
}
