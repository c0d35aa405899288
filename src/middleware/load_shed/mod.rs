//! Rejects calls that would wait too long, so that the service spends its time on calls that are still worth it.
//!
//! A service that accepts every call is late for all of them under overload: each waits until its caller has given up.
//! Rejecting some at once, with a time after which to retry, keeps the others in time. There are two policies:
//!
//! * [`LoadShedLayer::new`] rejects calls while the inner service is not ready.
//! * [`LoadShedLayer::predicting`] lets calls wait, and rejects those whose predicted wait is too long.
//!
//! It differs from [`tower::load_shed`](https://docs.rs/tower/0.5/tower/load_shed), which has the first policy, in that an
//! exhausted cooperative budget of Tokio's is not taken for overload: of a burst of 10 000 calls from one task, over a buffer
//! with room for all of them, `tower`'s rejects all but the first 128. It differs from a
//! [`RateLimiterLayer`](super::RateLimiterLayer) in that its limit is what the service can do, not what a caller may ask for.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::{ConcurrencyLayer, LoadShedLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let second = Duration::from_secs(1);
//! let slow = service_fn(|_: http::Request<()>| async {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! // One call at a time, of a second each, and a wait of up to 3 s, of which normal priority may use 0.8.
//! let shed = LoadShedLayer::predicting(3 * second).parallelism(1);
//! let shed = shed.estimate(move |_: &http::Request<()>| second);
//! let service = shed.layer(ConcurrencyLayer::new(1).layer(slow));
//!
//! let calls = [(); 4].map(|()| tokio::spawn(service.clone().oneshot(http::Request::new(()))));
//! let mut completed = 0;
//! for call in calls {
//!     match call.await.unwrap() {
//!         Ok(_) => completed += 1,
//!         Err(error) => {
//!             assert_eq!(error.kind(), ErrorKind::Overloaded);
//!             assert_eq!(error.retry_after(), Some(Duration::from_millis(600)));
//!         }
//!     }
//! }
//! assert_eq!(completed, 3);
//! # }
//! ```
//!
//! # Prediction
//!
//! The predicted wait is the estimated work served before the call over the measured throughput; zero while the service has
//! capacity. That work is of all calls in flight, in order of arrival; with [`by_priority`](LoadShedLayer::by_priority) of calls
//! of the same and higher priorities, and the running calls, which are half done on average. With
//! [`by_share`](LoadShedLayer::by_share) it is what the call's own share has of those, and what each other share is served
//! meanwhile: as much for its weight, or all that it has.
//!
//! A call is rejected if the wait exceeds `max_wait`, or what its deadline or the [timeout](LoadShedLayer::timeout) leaves after
//! its own estimate. Lower [priorities](crate::request::Priority) may use only a
//! [fraction](LoadShedLayer::max_wait_fractions) of either, so they are rejected first. The retry-after is the excess: after
//! it, and if no other call comes, the call would be admitted.
//!
//! * **Estimates** are learned for each [operation](crate::request::RequestContext::operation), as a mean in which the newest
//!   call counts an eighth, or half after several calls of less than a quarter of the mean. 512 operations have one, and each
//!   assigned [share](crate::request::RequestContext::share) has its own for each of them. Or a
//!   [closure](LoadShedLayer::estimate) estimates calls, and its mean error corrects it. A call's own time is that of the
//!   response's [`Execution`](crate::request::Execution); without one it is the latency, if the call had nothing to wait for or
//!   the latency is shorter than expected.
//! * **Throughput** is measured while more calls are in flight than can run. It starts at the
//!   [parallelism](LoadShedLayer::parallelism); if that is learned, one call more than known is tried.
//! * **No call is rejected because of a guess.** Until the throughput has been measured or the parallelism set, all calls are
//!   admitted, to be bounded by the inner service. A call of an operation (or share) that has not completed before is rejected
//!   only for the work ahead of it, not for its own.
//! * **An estimate that is too high cannot lock an operation out.** An idle service takes any call, and each rejection because of
//!   the call's own estimate lowers that by a 32nd.
//! * **A standing queue is kept short.** If calls have been rejected, and the service has been saturated for longer than a call
//!   may wait, the queue does not absorb a burst but only adds delay. Then calls below the highest priority may use half of
//!   their fraction, but at least the time of two calls. That a burst differs from a standing queue in that it drains is
//!   [CoDel](https://queue.acm.org/detail.cfm?id=2209336)'s idea, and the remedy that of
//!   [Fail at Scale](https://queue.acm.org/detail.cfm?id=2839461).
//!
//! # Readiness
//!
//! This layer is always ready. A call that is admitted while the inner service is not ready waits in its own future, with the
//! service that was polled, which keeps its place in the inner queue; the next call gets a clone. It waits for `max_wait` or
//! until its deadline, and is then rejected. If a call is rejected while its service is queued in the inner one, that service is
//! replaced by a clone, so that no capacity goes to a call that is not made; a ready service stays ready for the next call.
//!
//! # Cancel safety
//!
//! A call counts as work ahead until its future has completed or is dropped; the inner future is dropped before that.

mod backlog;
mod error;
mod estimate;
mod future;
mod layer;
mod policy;
mod predicted;
mod service;
mod throughput;

pub use self::error::LoadShedError;
pub use self::estimate::{CustomEstimate, LearnedEstimate};
pub use self::future::ResponseFuture;
pub use self::layer::{LoadShedLayer, LoadShedSnapshot, NotReadySnapshot};
pub use self::policy::WhenNotReady;
pub use self::predicted::Predicted;
pub use self::service::LoadShed;
