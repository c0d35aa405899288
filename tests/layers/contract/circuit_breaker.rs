//! The contract of circuit breakers that are closed, and of one that admits one probe at a time.

use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::CircuitBreakerLayer;
use tower_kernels::middleware::circuit_breaker::{CircuitBreakerConfig, CircuitState};

use super::contract;
use crate::contract::layers::{
    Around, SECOND, adds_at_most, around, errors_keep_their_meaning, load_is_passed_on, of_each_layer,
};
use crate::support::probe::{Act, Request, probe};

/// A circuit whose open time is over, so that it is half open from the next call on.
async fn due() -> Around<CircuitBreakerLayer> {
    let layer = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(1),
        unready_while_open: true,
        ..Default::default()
    });
    let mut service = layer.layer(probe(1).0);
    service.ready().await.unwrap().call(Request::new(Act::Fail(ErrorKind::Internal))).await.unwrap_err();
    assert_eq!(layer.snapshot().state, CircuitState::Open);
    tokio::time::advance(SECOND).await;
    around(layer)
}

/// A circuit that no failure opens.
pub(crate) fn always_closed() -> CircuitBreakerLayer {
    CircuitBreakerLayer::with_config(CircuitBreakerConfig { consecutive_failures: None, ..Default::default() })
}

contract!(circuit_breaker_closed, around(CircuitBreakerLayer::new()));
contract!(circuit_breaker_due, due().await);
contract!(circuit_breaker_per_operation, around(CircuitBreakerLayer::new().per_operation()));
contract!(
    circuit_breaker_per_key,
    around(CircuitBreakerLayer::new().per_key(|request: &Request| request.tenant.clone()))
);

of_each_layer! {
    circuit_breaker_as_a_layer: around(always_closed()), 64;
    circuit_breaker_per_operation_as_a_layer: around(always_closed().per_operation()), 64;
}
