//! Lets so many calls run at a time: a fixed number, or one that is learned; of all, or in fair shares of tenants.
//!
//! `poll_ready` reserves the place, so that a service that is full says so before there is a call to refuse. Whoever
//! finds no place waits there, first come, first served.
//!
//! It differs from [`tower::limit::concurrency`](https://docs.rs/tower/0.5/tower/limit/concurrency) in that
//! * the places are the layer's: all services that one layer makes share them, where `tower` has `GlobalConcurrencyLimit`
//!   for that;
//! * the limit can change while calls wait, [by hand](ConcurrencyLayer::set_limit) or by an [`Algorithm`];
//! * the place is free when the work has ended, and not when the caller drops what is left of the future;
//! * what it reads of the load is whether there is a place, and nothing of Tokio's cooperative budget: a task that has used
//!   its budget up finds the same places as any other;
//! * entering and leaving are a compare-and-swap each while nobody waits, and allocate nothing.
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
//! assert_eq!((layer.in_flight(), layer.waiting()), (2, 1));
//! for call in calls {
//!     call.await.unwrap().unwrap();
//! }
//! assert_eq!((layer.in_flight(), layer.waiting()), (0, 0));
//! # }
//! ```
//!
//! # A limit that is learned
//!
//! [`ConcurrencyLayer::adaptive`] takes an [`Algorithm`], which is told of each call how long it took and whether it ended
//! in overload, by [`Classify`](crate::error::Classify): [`Aimd`] goes by errors, [`Gradient`] by latency. A smaller
//! limit takes effect as calls end. Calls that fail for reasons of their own are not counted, and neither are those that
//! are dropped before their deadline.
//!
//! ```
//! use std::time::Duration;
//! use tower_kernels::middleware::concurrency::{Aimd, ConcurrencyLayer, Gradient};
//!
//! let by_errors = ConcurrencyLayer::adaptive(Aimd::new(20).slower_than(Duration::from_millis(250)));
//! let by_latency = ConcurrencyLayer::adaptive(Gradient::new(20).range(4..=200));
//! # assert_eq!(by_errors.limit(), by_latency.limit());
//! ```
//!
//! # Tenants
//!
//! There is no request in `poll_ready`, so nobody knows there whose place it is. With
//! [`per_tenant`](ConcurrencyLayer::per_tenant) calls take and await their place in `call`: see [`fair`].
//!
//! # Cancel safety
//!
//! A service that waits in `poll_ready` keeps its place in the queue between polls and gives it up when it is dropped; a
//! place that was handed to it meanwhile goes to the next. So does one that was reserved for a call that is never made.
//! Dropping the future drops the inner one first, and then gives the place back.
//!
//! A service that is kept without being polled any more keeps what it has reserved, as in all of Tower: drop it, or call it.

mod aimd;
pub mod fair;
mod future;
mod gate;
mod gradient;
mod layer;
mod limit;
mod service;
mod shared;

pub use self::aimd::Aimd;
pub use self::future::ResponseFuture;
pub use self::gradient::Gradient;
pub use self::layer::ConcurrencyLayer;
pub use self::limit::{Adaptive, Algorithm, Fixed, Outcome, Sample};
pub use self::service::ConcurrencyLimit;
