//! Rejects calls while too many fail, so that a broken service can recover and its callers fail fast.
//!
//! A circuit opens
//! * after a number of [consecutive failures](CircuitBreakerConfig::consecutive_failures),
//! * when too large a [share of the recent calls](CircuitBreakerConfig::failure_rate) has failed, or
//! * when too large a share of them [was slow](CircuitBreakerConfig::slow_call_duration).
//!
//! While it is open, calls are rejected as [`Unavailable`](crate::error::ErrorKind::Unavailable), with the time after which
//! to retry. Then it is half open and admits some calls as [probes](CircuitBreakerConfig::max_probes): when enough have
//! succeeded it closes, and when one fails it opens again for [twice as long](CircuitBreakerConfig::initial_open_time), up
//! to a maximum.
//!
//! It differs from `tower-resilience`'s circuit breaker in that
//! * a call through a closed circuit allocates nothing, however many calls the window holds;
//! * what is a failure follows from [`Classify`](crate::error::Classify), and from responses that are rejections;
//! * a probe that is cancelled frees its permit, and one that never ends does not keep the circuit open for ever;
//! * there can be a circuit for each operation, tenant or key of the request;
//! * an open circuit does not poll the inner service's readiness.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::CircuitBreakerLayer;
//! use tower_kernels::middleware::circuit_breaker::{CircuitBreakerConfig, CircuitState};
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the upstream is down")]
//! struct Down;
//! impl Classify for Down {
//!     fn kind(&self) -> ErrorKind {
//!         ErrorKind::Unavailable
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let config = CircuitBreakerConfig { consecutive_failures: Some(3), ..Default::default() };
//! let breaker = CircuitBreakerLayer::with_config(config);
//! let mut service = breaker.layer(service_fn(|up: http::Request<bool>| async move {
//!     if *up.body() { Ok(http::Response::new(())) } else { Err(Down) }
//! }));
//!
//! for _ in 0..3 {
//!     service.ready().await.unwrap().call(http::Request::new(false)).await.unwrap_err();
//! }
//! // The circuit is open: even a call that would succeed is rejected.
//! let rejected = service.ready().await.unwrap().call(http::Request::new(true)).await.unwrap_err();
//! assert_eq!(breaker.snapshot().state, CircuitState::Open);
//!
//! tokio::time::sleep(rejected.retry_after().unwrap()).await;
//! service.ready().await.unwrap().call(http::Request::new(true)).await.unwrap();
//! assert_eq!(breaker.snapshot().state, CircuitState::Closed);
//! # }
//! ```
//!
//! # Outcomes
//!
//! Errors, and responses that are rejections such as an HTTP response of status 503, count by their
//! [kind](CircuitBreakerConfig::failures): `Internal`, `Unavailable` and `DeadlineExceeded` are failures by default. Other
//! kinds count neither as failures nor as successes: invalid requests, exhausted quotas, full queues and cancelled calls say
//! nothing about whether the service works. Two cases are special:
//! * `DeadlineExceeded` is ignored if the deadline was chosen by the caller and has passed, unless
//!   [`min_caller_timeout`](CircuitBreakerConfig::min_caller_timeout) is set. A server's own timeout counts: that of a
//!   [`TimeoutLayer`](super::TimeoutLayer) inside the breaker, and a deadline that the request
//!   [says is one](crate::request::RequestContext::deadline_is_server_timeout).
//! * A cancelled call counts as slow if it had taken longer than a slow call by then.
//!
//! A call that panics counts as `Internal`. An outcome counts only if the circuit has not changed its state since the call
//! was admitted, so calls from before it opened do not open it again.
//!
//! # Readiness
//!
//! With one circuit for all requests,
//! * an error of the inner service's readiness counts like that of a call, and is returned;
//! * while the circuit is open, the service is ready without polling the inner one and rejects the call. Tasks that wait
//!   for the inner service when the circuit opens are woken. Under a balancer, prefer
//!   [`unready_while_open`](CircuitBreakerConfig::unready_while_open);
//! * `poll_ready` reserves the permit of a probe, so that no more tasks wait for the inner service than there are permits.
//!   Dropping the service frees it.
//!
//! With circuits per operation or key, readiness is that of the inner service, and its errors count for no circuit.
//!
//! If all permits are taken by probes that never end, one more is admitted each time that the open time has passed.
//!
//! # Which requests share a circuit
//!
//! One circuit for each kernel or route: [`per_operation`](CircuitBreakerLayer::per_operation), and in it
//! [one for each tenant](CircuitBreakerConfig::min_open_tenants) until those of several tenants are open. One for each
//! value of something else in the request: [`per_key`](CircuitBreakerLayer::per_key). One for each device or replica, which
//! is not in the request: a layer of its own around each service, inside the balancer. Clones of a layer share its circuits.
//!
//! Names of operations and keys come from clients. One gets a circuit when a call of it ends as a success or a failure,
//! which counts there; errors for unknown names are neither, so made-up names take no memory unless all calls fail. When
//! [all circuits are taken](CircuitBreakerConfig::max_keys), idle ones are removed at most once a second, and other
//! operations and keys share one circuit, as do those of more than 128 bytes.
//!
//! # Observability
//!
//! [`CircuitBreakerLayer::snapshot`] reads the circuit, and [`CircuitBreakerLayer::snapshots`] all of them. Each transition
//! is a `tracing` event, at level `WARN` when a circuit opens.
//!
//! # Cancel safety
//!
//! Dropping the future frees a probe's permit and counts as nothing, unless the call was slow.

mod circuits;
mod config;
mod error;
mod future;
mod key;
mod layer;
#[cfg(all(test, tower_kernels_loom))]
mod loom;
mod readiness;
mod service;
mod snapshot;
mod state_machine;
mod window;

pub use self::config::CircuitBreakerConfig;
pub use self::error::CircuitBreakerError;
pub use self::future::ResponseFuture;
pub use self::key::{CircuitKey, PerOperation, SingleCircuit};
pub use self::layer::CircuitBreakerLayer;
pub use self::service::CircuitBreaker;
pub use self::snapshot::{CircuitSnapshot, CircuitState};
