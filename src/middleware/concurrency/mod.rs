//! Limits how many calls run at a time: to a constant or a learned number, for all calls or in fair shares of tenants.
//!
//! `poll_ready` reserves a permit, so the service is pending while the limit is reached. Waiting services get their permits in
//! order of arrival.
//!
//! It differs from [`tower::limit::concurrency`](https://docs.rs/tower/0.5/tower/limit/concurrency) in that
//! * all services made by one layer share its permits, which in `tower` needs `GlobalConcurrencyLimit`;
//! * the limit can change while calls wait, [by hand](ConcurrencyLayer::set_limit) or by an [`Algorithm`];
//! * the permit is free when the call has completed, before its future is dropped;
//! * Tokio's cooperative budget has no influence: a task that has used it up still gets a free permit.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::ConcurrencyLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = ConcurrencyLayer::new(2);
//! let slow = service_fn(|name: &'static str| async move {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::convert::Infallible>(name.len())
//! });
//! let service = layer.layer(slow);
//!
//! let calls = ["one", "two", "three"].map(|name| tokio::spawn(service.clone().oneshot(name)));
//! tokio::time::sleep(Duration::from_millis(500)).await;
//! assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (2, 1));
//! for call in calls {
//!     call.await.unwrap().unwrap();
//! }
//! assert_eq!((layer.snapshot().in_flight, layer.snapshot().waiting), (0, 0));
//! # }
//! ```
//!
//! # Adaptive limits
//!
//! [`ConcurrencyLayer::adaptive`] takes an [`Algorithm`], which observes how long each call took and whether it ended in
//! overload, by [`Classify`](crate::error::Classify): [`Aimd`] adapts to errors, [`Gradient`] to latency. A lower limit takes
//! effect as calls end. Calls that fail for other reasons are not observed, nor are those dropped before their deadline.
//!
//! ```
//! use std::time::Duration;
//! use tower_kernels::middleware::concurrency::{Aimd, ConcurrencyLayer, Gradient};
//!
//! let by_errors = ConcurrencyLayer::adaptive(Aimd::new(20).latency_threshold(Duration::from_millis(250)));
//! let by_latency = ConcurrencyLayer::adaptive(Gradient::new(20).range(4..=200));
//! # assert_eq!(by_errors.snapshot().limit, by_latency.snapshot().limit);
//! ```
//!
//! # Tenants
//!
//! `poll_ready` has no request, so the tenant is not known there. With [`per_tenant`](ConcurrencyLayer::per_tenant) calls
//! acquire their permit in `call`: see [`fair`].
//!
//! # Cancel safety
//!
//! A service that is pending keeps its position in the queue between polls and gives it up when it is dropped; a permit that it
//! was granted goes to the next one. A permit that was reserved for a call that is never made is given back when the service is
//! dropped. Dropping the response future drops the inner one first, and then gives the permit back.

mod aimd;
pub mod fair;
mod future;
mod gradient;
mod layer;
mod limit;
mod permits;
mod service;

pub use self::aimd::Aimd;
pub use self::future::ResponseFuture;
pub use self::gradient::Gradient;
pub use self::layer::ConcurrencyLayer;
pub use self::limit::{Adaptive, Algorithm, Fixed, Outcome, Sample};
pub use self::permits::ConcurrencySnapshot;
pub use self::service::ConcurrencyLimit;
