//! Refuses at once what would come to nothing, so that the time goes to calls that are still worth it.
//!
//! A service that takes every call is late for all of them once there are too many: each waits for so long that nobody
//! is there any more to read its answer. Refusing some at once, and saying when to come again, keeps the others in time.
//! There are two ways to decide:
//!
//! * [`LoadShedLayer::new`] refuses a call when the inner service is not ready, as
//!   [`tower::load_shed`](https://docs.rs/tower/0.5/tower/load_shed) does. Unlike it, it does not take an exhausted budget
//!   of Tokio's for a full service: in one burst of 10 000 calls over a buffer with room for all of them, `tower`'s
//!   refuses all but the first 128.
//! * [`LoadShedLayer::predicting`] lets calls wait, and refuses those for which what is ahead leaves no time.
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
//! // One at a time, each takes a second, and nobody is to wait for longer than three: 0.8 of that for most.
//! let shed = LoadShedLayer::predicting(3 * second).parallelism(1);
//! let shed = shed.estimate(move |_: &http::Request<()>| second);
//! let service = shed.layer(ConcurrencyLayer::new(1).layer(slow));
//!
//! let calls = [(); 4].map(|()| tokio::spawn(service.clone().oneshot(http::Request::new(()))));
//! let mut answered = 0;
//! for call in calls {
//!     match call.await.unwrap() {
//!         Ok(_) => answered += 1,
//!         Err(error) => {
//!             assert_eq!(error.kind(), ErrorKind::Overloaded);
//!             assert_eq!(error.retry_after(), Some(Duration::from_millis(600)));
//!         }
//!     }
//! }
//! assert_eq!(answered, 3);
//! # }
//! ```
//!
//! # What is predicted
//!
//! The wait is the sum of the estimates of what is served before the call, over how much of it gets done in a unit of
//! time; while a place is free it is nothing. Before it come all calls that have been let in and have not ended, or,
//! [by priority](LoadShedLayer::by_priority), those of its own priority and of higher ones, and those that run, which on the
//! average are half done. [By share](LoadShedLayer::by_share) it is what the call's own share has of those, and of each other
//! share what that is served meanwhile: as much for its weight, or all that it has. A call is refused if the wait is more than
//! `max_wait`, or more than what its deadline, or the time that it [has](LoadShedLayer::answer_within), leaves it after its own
//! estimate, and calls of lower
//! [priority](crate::request::Priority) may use only a [part](LoadShedLayer::parts) of either, so they go first. The
//! retry-after is what the wait is too long by: when it is over, and nothing else has come, the call would be let in.
//!
//! * **A line that stands is kept short.** Where calls have had to be refused, and no place has been free for longer than a
//!   call may wait in all, it is no burst that will be worked off: the line makes every call wait for nothing, and late
//!   where something takes longer than was expected. Until a place is free, calls below the highest priority may then use
//!   half of their part, though not less than two calls' time, so that the places do not run dry. That the queue which
//!   absorbs a burst is told from the one that only adds delay by whether it empties in between is
//!   [CoDel](https://queue.acm.org/detail.cfm?id=2209336)'s, and what is done about it that of
//!   [Fail at Scale](https://queue.acm.org/detail.cfm?id=2839461).
//! * **Nothing is refused on the strength of a guess.** Before it has been measured how much gets done, or
//!   [told](LoadShedLayer::parallelism), all calls are let in, and it is for the queue further in to bound them. A call of an
//!   operation that has not been answered, or not to its [share](crate::request::RequestContext::share), is refused for what is
//!   ahead of it alone and not for what it might take itself.
//! * **Estimates** are learned by [operation](crate::request::RequestContext::operation), as a mean in which the newest
//!   call counts an eighth, and half where the last few were all less than a quarter of it; 512 operations have one of their
//!   own, and only those that were answered. A share that has been assigned has a mean of its own for each operation, as calls
//!   of one tenant can take a thousand times as long as those of another. Or a [closure](LoadShedLayer::estimate) gives them,
//!   and the mean of how far off it was corrects it. A call's own time is
//!   what the response's [`Execution`](crate::request::Execution) says. Where that says nothing it is the time from the inner call,
//!   where nothing was ahead of it or it was shorter than expected: what queued says nothing of its own time.
//! * **How much gets done** is measured while there is more to do than there are places, so that it sees a slower clock or a
//!   neighbour. It begins as the [parallelism](LoadShedLayer::parallelism) that was given; learned, it is tried one call beyond
//!   what is known. What is counted as done is what calls took, where that is known, and not what they were expected to take.
//! * **An estimate that is too high cannot lock an operation out.** An idle service takes any call, and each refusal that
//!   only the call's own estimate is the reason for takes a 32nd off that.
//!
//! If nothing is said, calls are taken to be served in the order in which they come. Say that it is by priority where a
//! [`PriorityQueueLayer`](super::PriorityQueueLayer) is further in, or those of high priority are let in more rarely than
//! they could be: what waits of lower ones would count as ahead of them.
//!
//! # Who waits
//!
//! This layer is always ready: it answers each call at once or lets it in, so it never holds up who calls. (For a balancer
//! that is to look at readiness, put it around the balancer.) A call that is let in while the inner service is not ready
//! waits in its own future, with the very service that was polled, which keeps its place in the queue further in; the next
//! call gets a clone. It waits no longer than `max_wait` or its deadline, and is refused then if the prediction was wrong.
//! A service that waits for a place when its call is refused is let go, so that no place goes to a call that is not there;
//! one that is ready when its call is refused stays so for the next.
//!
//! # Cancel safety
//!
//! A call counts as work ahead until its future has ended or is dropped; the inner future is dropped before that.

mod drain;
mod error;
mod estimate;
mod future;
mod layer;
mod policy;
mod predict;
mod service;
mod shares;

pub use self::error::LoadShedError;
pub use self::estimate::{Given, Learned};
pub use self::future::ResponseFuture;
pub use self::layer::LoadShedLayer;
pub use self::policy::WhenNotReady;
pub use self::predict::Predicted;
pub use self::service::LoadShed;
