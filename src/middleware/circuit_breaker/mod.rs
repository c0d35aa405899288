//! Refuses calls for a while when too many have failed, and then tries with a few whether the service has recovered.
//!
//! A service that is broken is left alone to recover, and its callers learn at once what they would otherwise have waited
//! for. A circuit opens
//! * after so many [failures in a row](CircuitBreakerLayer::consecutive_failures),
//! * when too large a [share of the calls](CircuitBreakerLayer::failure_rate) of the last while has failed, or
//! * when too large a share of them [was slow](CircuitBreakerLayer::slow_calls).
//!
//! While it is open, calls are refused as [`Unavailable`](crate::error::ErrorKind::Unavailable), and the error says how
//! long until the next is tried. Then some go through as [probes](CircuitBreakerLayer::probes): if they succeed the circuit
//! closes, and if one fails it opens again for [twice as long](CircuitBreakerLayer::open_for), up to a bound.
//!
//! It differs from `tower-resilience`'s circuit breaker in that
//! * a call through a closed circuit allocates nothing, and costs the same however many calls the window holds;
//! * what is a failure follows from [`Classify`](crate::error::Classify), and from a response that is a refusal itself;
//! * a probe whose caller leaves gives its place back, and one that never ends does not keep the circuit open for ever;
//! * there can be a circuit for each operation, or for each key of the request;
//! * an open circuit does not ask whether the inner service is ready.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::CircuitBreakerLayer;
//! use tower_kernels::middleware::circuit_breaker::CircuitState;
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
//! let breaker = CircuitBreakerLayer::new().consecutive_failures(3).open_for(Duration::from_secs(1), Duration::from_secs(60));
//! let mut service = breaker.layer(service_fn(|up: http::Request<bool>| async move {
//!     if *up.body() { Ok(http::Response::new(())) } else { Err(Down) }
//! }));
//!
//! for _ in 0..3 {
//!     service.ready().await.unwrap().call(http::Request::new(false)).await.unwrap_err();
//! }
//! // From now on calls are refused, even one that would have succeeded.
//! let refused = service.ready().await.unwrap().call(http::Request::new(true)).await.unwrap_err();
//! assert_eq!(breaker.status().state, CircuitState::Open);
//!
//! tokio::time::sleep(refused.retry_after().unwrap()).await;
//! service.ready().await.unwrap().call(http::Request::new(true)).await.unwrap();
//! assert_eq!(breaker.status().state, CircuitState::Closed);
//! # }
//! ```
//!
//! # What counts
//!
//! Errors, and responses that are refusals themselves such as an HTTP response of status 503, count by their
//! [kind](CircuitBreakerLayer::failures). `Internal`, `Unavailable` and `DeadlineExceeded` are failures if nothing else is
//! said. The others are neither failures nor successes: what a caller does wrong, a refusal because of a quota or a full
//! queue, and a call whose caller left say nothing of whether the service works. Two cases lie between:
//! * `DeadlineExceeded` is no failure of the service where a deadline that the caller chose has passed, unless that is
//!   [asked for](CircuitBreakerLayer::patience). A server's own timeout counts: that of a
//!   [`TimeoutLayer`](super::TimeoutLayer) inside the breaker, of which the request does not know yet, and a deadline that
//!   the request [says is one](crate::request::RequestContext::deadline_is_server_timeout).
//! * A call that its caller leaves counts as slow where it had by then taken longer than a slow call may.
//!
//! A call that panics counts as `Internal`. What a call brings counts only while the circuit is in the state that let it
//! through, so calls from before it opened do not open it again.
//!
//! # Readiness
//!
//! With one circuit for all requests, readiness takes part:
//! * an error of the inner service's readiness counts like that of a call, and is passed on;
//! * while the circuit is open the service is ready without a look at the inner one, and refuses the call. Those who were
//!   waiting for the inner service when the circuit opened are woken, and refused. Under a balancer an
//!   [unready](CircuitBreakerLayer::unready_while_open) service is of more use;
//! * a probe takes its place in `poll_ready`, so that no more wait for the inner service than may probe. It is given back
//!   when the service is dropped.
//!
//! With circuits by key nothing is known of the request before the call: readiness is the inner service's own, its errors
//! are passed on and count for none of the circuits.
//!
//! Should all probes have places and none of them end, for their callers wait without a deadline, one more goes through
//! each time that the open time has passed.
//!
//! # A circuit for each what?
//!
//! For each kernel or route: [`per_operation`](CircuitBreakerLayer::per_operation), and in it
//! [for each tenant](CircuitBreakerLayer::per_tenant), until several tenants agree: one whose calls fail has its own circuit
//! opened, and the others do not notice. For anything else in the request:
//! [`per_key`](CircuitBreakerLayer::per_key). For each device or replica, which is not in the request: a layer of its own
//! around the service of each, inside what chooses between them. Clones of one layer share their circuits.
//!
//! Names of operations come from clients. One gets a circuit when a call of it has ended as a success or a failure, which
//! counts there already; what a service says of a name that it does not know is neither, so made-up names take no room,
//! unless all calls fail. Where there is [no more room](CircuitBreakerLayer::max_keys), those without a failure
//! of late, and those that nobody has asked for since they could be probed, make some, at most once a second; the rest
//! share one circuit.
//!
//! # Seeing it
//!
//! [`CircuitBreakerLayer::handle`] reads the circuits and [registers](CircuitBreakerHandle::register) them as metrics. Each
//! transition is an event of `tracing`, at level `WARN` where a circuit opens.
//!
//! # Cancel safety
//!
//! A future that is dropped gives back the place of its probe and decides nothing, unless it was slow.

mod circuit;
mod circuits;
mod error;
mod first;
mod future;
mod gate;
mod layer;
mod machine;
mod service;
mod settings;
mod status;
mod table;
mod tenants;
mod terms;
mod waiting;
mod window;

pub use self::circuit::Circuit;
pub use self::circuits::{Circuits, One, PerKey, PerOperation};
pub use self::error::CircuitBreakerError;
pub use self::future::ResponseFuture;
pub use self::layer::CircuitBreakerLayer;
pub use self::service::CircuitBreaker;
pub use self::status::{CircuitBreakerHandle, CircuitState, CircuitStatus};
