//! Has calls wait while the inner service is not ready, and decides who is next: fair among tenants, and in each of them by
//! priority and deadline.
//!
//! It differs from [`tower::buffer`](https://docs.rs/tower/0.5/tower/buffer) in that
//! * who waits is served in the order in which it matters, not in which it came;
//! * a call whose deadline passes is refused then, by a timer, and its place is free; so is the place of a caller that
//!   leaves;
//! * a full queue refuses those that matter least, and says when to retry;
//! * where nothing waits and the inner service is ready, a call goes straight through: no task, no channel, no allocation.
//!
//! Put it directly around what is not ready when it is full: a backend, a [`ConcurrencyLayer`](super::ConcurrencyLayer),
//! a [`BatchLayer`](super::BatchLayer). Around a service that is always ready nothing ever waits.
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
//! let batch = http::Request::builder().extension(Priority::Low).body("can wait").unwrap();
//! let batch = service.ready().await.unwrap().call(batch);
//! let user = http::Request::builder().extension(Priority::High).body("a user waits").unwrap();
//! let user = service.ready().await.unwrap().call(user);
//! assert_eq!((layer.waiting(Priority::High), layer.waiting(Priority::Low)), (1, 1));
//!
//! let (_, user, batch) = tokio::join!(running, user, batch);
//! assert!(user.unwrap().body() < batch.unwrap().body());
//! # }
//! ```
//!
//! # Who is next
//!
//! 1. The tenant whose turn it is by *start-time fair queueing*, after its [weight](PriorityQueueLayer::weight). Those
//!    without a tenant share one turn, with those whose tenant's name is [too long](crate::request::tenant_key) to
//!    be kept. Where requests have been assigned a [share](crate::request::RequestContext::share), that and its weight
//!    stand for the tenant. Shares are of turns, or of time among requests of which it is
//!    [known](crate::request::RequestContext::expected_time) how long they take, as a [`LoadShedLayer`](super::LoadShedLayer)
//!    around the queue tells it.
//! 2. Of its calls, the highest [`Priority`](crate::request::Priority) that has something waiting. After sixteen turns that
//!    passed a lower one over, the next is its: a flood of urgent calls leaves those without a deadline something, and costs
//!    the urgent ones a seventeenth at the most for each priority below. [`PriorityQueueLayer::strict`] turns that off.
//! 3. Of those, the one with the earliest deadline; those without a deadline come after those with one, as they came.
//!
//! So a priority takes nothing from another tenant, whoever may ask for which.
//!
//! Every step is `O(log n)` in what waits.
//!
//! # Deadlines
//!
//! A call is refused when its deadline passes, whoever is before it and whether or not its future is polled. Where more
//! comes than can be served for a while, the next by deadline is one that has hardly any time left, and running it helps
//! nobody: [`PriorityQueueLayer::time_to_answer`] refuses those that cannot be answered in time any more, and a
//! [`LoadShedLayer`](super::LoadShedLayer) around the queue those that will not be served in time, as they come.
//! [`PriorityQueueLayer::learn_time_to_answer`] learns the time from the calls that had waited: a longer one counts a
//! quarter, a shorter one a 32nd, so that few calls are run that end too late. One of 512 operations has a time of its own,
//! the others that of all. A call that is refused as it comes, because calls like it take longer than it has, takes a 32nd
//! off that, so that a time that is too long locks no operation out.
//!
//! What is refused for want of time before its deadline is told so by an error of the kind
//! [`Overloaded`](crate::error::ErrorKind::Overloaded), and what waited until its deadline by one of the kind
//! [`DeadlineExceeded`](crate::error::ErrorKind::DeadlineExceeded).
//!
//! # When it is full
//!
//! A call that finds no room, in number or in bytes, takes the place of another: of the last one of the lowest priority of the
//! tenant that has the most waiting for its weight, if that still has more than the call's own tenant has with it; or else of
//! the last one of its own tenant of the lowest priority below its own. So no tenant can keep the others out by filling the
//! queue, whatever the priority. Where there is none, it is refused itself. Both refusals are of the
//! kind [`Overloaded`](crate::error::ErrorKind::Overloaded) and say in what time what is before the call will be served,
//! at the pace of the last turns.
//!
//! # What readiness means
//!
//! Either the inner service's, which is then called, or a place in the queue, which is reserved. Whether the queue has room for
//! the call itself is decided when it is made and it is known whose it is. So the service is not ready where as many places
//! are reserved, or held by waiting calls of the highest priority that have no tenant, as there may be. With
//! [`PriorityQueueLayer::wait_when_full`] a place is the call's whatever its priority,
//! and the service is not ready once all are taken.
//!
//! # How it works
//!
//! The first call that has to wait starts a task, which ends when nothing waits any more. It asks a clone of the inner
//! service for readiness, gives the ready service to whoever is next at that moment, and asks with another clone for the one
//! after. The call is made by its own future, so a panic in it is its caller's. A caller that does not poll its future keeps
//! what one call keeps, and holds up nobody else. The task needs a Tokio runtime with time enabled; where it ends by a panic
//! of the inner service or with its runtime, all that wait are told.
//!
//! One layer that is put around several services has one bound and one count for all of them, and an order for each, as
//! there is a readiness of each to wait for.
//!
//! # Cost
//!
//! Straight through, it is one look whether anything waits. A call that waits is kept in its future, and the queue's tables
//! grow with what waits; nothing else is allocated, save the task at the beginning of a time in which calls wait.
//!
//! # Cancel safety
//!
//! Dropping the future of a call that waits frees its place at once. One that was given the inner service and had not
//! called it yet hands it on to the next in line.

mod answers;
mod error;
mod future;
mod layer;
mod line;
mod numbers;
mod order;
mod pace;
mod room;
mod service;
mod sorted;
mod tenants;
#[cfg(test)]
mod tests;
mod worker;

pub use self::error::PriorityQueueError;
pub use self::future::ResponseFuture;
pub use self::layer::PriorityQueueLayer;
pub use self::room::QueueStatus;
pub use self::service::PriorityQueue;
