//! Queues calls while the inner service is not ready, and serves them fairly among tenants, then by priority and deadline.
//!
//! It differs from [`tower::buffer`](https://docs.rs/tower/0.5/tower/buffer) in that
//! * calls are served by tenant, priority and deadline instead of in order of arrival;
//! * a call whose deadline passes while it waits is rejected then, by a timer; a cancelled call frees its place at once;
//! * a full queue rejects the least urgent calls and says when to retry;
//! * while the inner service is ready and no call waits, a call passes straight through: no task, channel or allocation.
//!
//! Put it directly around a service that is not ready when it is full: a backend,
//! a [`ConcurrencyLayer`](super::ConcurrencyLayer), a [`BatchLayer`](super::BatchLayer). Around a service that is always
//! ready no call ever waits. A [`LoadShedLayer`](super::LoadShedLayer) around it rejects calls on arrival that would wait too
//! long.
//!
//! ```
//! use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::layers::PriorityQueueLayer;
//! use tower_kernels::request::Priority;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = PriorityQueueLayer::new(100);
//! let mut service = ServiceBuilder::new().layer(layer.clone()).concurrency_limit(1).service(service_fn(
//!     |request: http::Request<&'static str>| async move {
//!         println!("{}", request.body());
//!         tokio::time::sleep(std::time::Duration::from_millis(10)).await;
//!         Ok::<_, std::convert::Infallible>(http::Response::new(tokio::time::Instant::now()))
//!     },
//! ));
//!
//! let running = service.ready().await.unwrap().call(http::Request::new("first"));
//! let batch = http::Request::builder().extension(Priority::Low).body("batch job").unwrap();
//! let batch = service.ready().await.unwrap().call(batch);
//! let user = http::Request::builder().extension(Priority::High).body("interactive").unwrap();
//! let user = service.ready().await.unwrap().call(user);
//! assert_eq!(layer.snapshot().waiting_by_priority, [1, 0, 1]);
//!
//! let (_, user, batch) = tokio::join!(running, user, batch);
//! assert!(user.unwrap().body() < batch.unwrap().body());
//! # }
//! ```
//!
//! # Order
//!
//! 1. Tenants take turns by *start-time fair queueing*, in proportion to their [weights](PriorityQueueLayer::weight). Calls
//!    without a tenant are one tenant together, and so are those whose tenant's name is
//!    [too long](crate::request::tenant_key). If a call has an assigned [share](crate::request::RequestContext::share), the
//!    share and its weight replace the tenant. Turns are weighed by duration where a request has an
//!    [expected time](crate::request::RequestContext::expected_time), which a [`LoadShedLayer`](super::LoadShedLayer) around
//!    the queue sets; other calls count alike.
//! 2. Within a tenant the highest [`Priority`](crate::request::Priority) is next. A lower priority that has been passed over
//!    sixteen times in a row has the next turn, so urgent calls cannot starve the others;
//!    [`PriorityQueueLayer::strict_priority`] turns that off. A priority takes nothing from another tenant.
//! 3. Within a priority the earliest deadline is next. Calls without a deadline come last, in order of arrival.
//!
//! Every operation is `O(log n)` in the number of waiting calls.
//!
//! # Deadlines
//!
//! A call is rejected when its deadline passes, whatever its position and whether or not its future is polled
//! ([`Expired`](PriorityQueueError::Expired), of kind [`DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded)).
//!
//! Under overload the next call by deadline has hardly any time left, and running it is wasted work.
//! [`PriorityQueueLayer::min_service_time`] rejects calls that cannot complete in time any more, and
//! [`PriorityQueueLayer::learn_service_times`] learns that time from calls that have waited: a longer time counts a quarter,
//! a shorter one a 32nd, which approximates the upper quartile. 512 operations have a time of their own, others share one.
//! Such rejections are [`Late`](PriorityQueueError::Late), of kind [`Overloaded`](crate::error::ErrorKind::Overloaded); each
//! on arrival shortens the learned time by a 32nd, so that a time that is too long cannot lock an operation out.
//!
//! # When the queue is full
//!
//! A call that exceeds the bound on calls or bytes displaces another one: the last call of the lowest priority of the tenant
//! with the most calls waiting for its weight, if that tenant has more waiting than the new call's tenant would; otherwise the
//! last call of its own tenant of a lower priority. If there is none, the new call is rejected. So no tenant can fill the queue
//! and keep the others out. Both are of kind [`Overloaded`](crate::error::ErrorKind::Overloaded), with the time until the
//! calls ahead will have been served as the retry-after.
//!
//! # Readiness
//!
//! `poll_ready` reserves either the inner service, which is then called, or a permit for the queue. Whether the queue has room
//! for the particular call is decided in `call`, when its tenant is known. The service is pending while all permits are
//! reserved, or held by waiting calls of high priority without a tenant, which cannot be displaced. With
//! [`PriorityQueueLayer::wait_when_full`] every waiting call holds a permit, and the service is pending while the queue is
//! full.
//!
//! # The worker
//!
//! The first call that has to wait spawns a worker task, which ends when no call waits. It polls a clone of the inner service
//! and gives the ready service to the call that is next at that moment. The call is made by its own future, so a panic in it
//! is its caller's. The worker needs a Tokio runtime with time enabled. If it ends early, by a panic of the inner service or
//! with its runtime, all waiting calls fail with [`Stopped`](PriorityQueueError::Stopped).
//!
//! Services made by one layer share its bounds and counts; each has an order and a worker of its own.
//!
//! # Cancel safety
//!
//! Dropping the future of a waiting call frees its place at once. If it was given the inner service and has not called it, the
//! service goes to the next call.

mod error;
mod future;
mod layer;
mod queue;
mod schedule;
mod service;
mod service_times;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

pub use self::error::PriorityQueueError;
pub use self::future::ResponseFuture;
pub use self::layer::PriorityQueueLayer;
pub use self::service::PriorityQueue;
pub use self::shared::PriorityQueueSnapshot;
