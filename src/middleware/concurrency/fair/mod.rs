//! Shares a concurrency limit fairly among tenants.
//!
//! It differs from a plain [`ConcurrencyLayer`](super::ConcurrencyLayer) in that the permit is acquired in `call`, as the
//! tenant is not known in `poll_ready`. A call without a permit waits in its own future, and releases what the inner service
//! has reserved for it meanwhile; it polls the service for readiness again once it has a permit. `poll_ready` is the inner
//! service's alone: a service with a limit of its own, such as a [`KernelService`](crate::service::KernelService), should have
//! at least as high a limit, or calls queue there, unfairly.
//!
//! * **While no call waits, any tenant takes what is free.** A tenant that is alone has all permits.
//! * **A permit that becomes free goes to the waiting tenant that holds the fewest**, among several to the one whose last turn
//!   is the longest ago, within a tenant in order of arrival. So a tenant gets no more than its share while others wait, and
//!   those that hold more come down to it as their calls end. No running call is interrupted.
//! * **The queue is shared as well**: a tenant may have as many calls waiting as there is room left. One tenant alone fills
//!   half of the queue, two fill a third each, and there is always room for another tenant's first call. (This is the dynamic
//!   threshold of shared-memory switches: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998.) A further call is
//!   rejected as [`Overloaded`](crate::error::ErrorKind::Overloaded).
//!
//! Requests without a tenant are one tenant together, so leaving it out gains nothing. Only tenants with calls here are
//! remembered.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::ConcurrencyLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = ConcurrencyLayer::new(1).per_tenant(Duration::from_secs(5), 2);
//! let slow = service_fn(|_: http::Request<()>| async {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! let service = layer.layer(slow);
//!
//! let calls = [(); 3].map(|()| tokio::spawn(service.clone().oneshot(http::Request::new(()))));
//! let [first, second, third] = calls;
//! assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
//! // One of two places in the queue is taken; the other is for another tenant.
//! assert_eq!(third.await.unwrap().unwrap_err().kind(), ErrorKind::Overloaded);
//! # }
//! ```
//!
//! # Cancel safety
//!
//! Dropping the future of a waiting call removes it from the queue; a permit that it was granted goes to the next call.

mod error;
mod future;
mod layer;
mod service;

use tower_service::Service;

use super::Fixed;
use crate::middleware::CallOrReject;

pub use self::error::FairError;
pub use self::layer::FairLayer;
pub use self::service::Fair;

/// Response future of [`Fair`].
///
/// # Panics
/// If the call has to wait for a permit, polling needs a Tokio runtime with time enabled.
pub type ResponseFuture<S, R, L = Fixed> =
    CallOrReject<future::CallFuture<S, R, L>, FairError<<S as Service<R>>::Error>>;
