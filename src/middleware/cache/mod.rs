//! Keeps answers and gives them again to whoever asks the same.
//!
//! It differs from `moka` and the like, which are tables to look things up in, in that it is a layer; and from
//! `tower-resilience`'s cache in that
//! * nothing is kept unless a [`Repeats`](super::cache_key::Repeats) says which requests ask for the same;
//! * an answer is found by a digest of 128 bits and given only where the question is the same in full;
//! * it is bounded by the bytes that keys and answers take, and not by their number;
//! * a hit allocates nothing, and costs less than `moka`'s lookup alone.
//!
//! The table is [`quick_cache`]'s: what is asked for once makes room before what is asked for often.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::CacheLayer;
//! use tower_kernels::middleware::cache_key::Repeatable;
//!
//! struct Length(usize);
//! impl Repeatable for Length {
//!     fn keep(&self) -> Option<Self> {
//!         Some(Self(self.0))
//!     }
//!     fn repeat(&self) -> Self {
//!         Self(self.0)
//!     }
//!     fn weigh(&self) -> usize {
//!         0
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let cache = CacheLayer::new(1 << 20, |name: &&'static str| Some(*name)).ttl(Duration::from_secs(60));
//! let mut service = cache.layer(service_fn(|name: &'static str| async move {
//!     Ok::<_, std::convert::Infallible>(Length(name.len()))
//! }));
//! for _ in 0..3 {
//!     assert_eq!(service.ready().await.unwrap().call("hello").await.unwrap().0, 5);
//! }
//! assert_eq!((cache.hits(), cache.misses(), cache.entries()), (2, 1, 1));
//! # }
//! ```
//!
//! # What is kept
//!
//! Answers, as far as their [`Repeatable::keep`](super::cache_key::Repeatable::keep) gives a copy. Errors never are, nor is an answer that takes
//! more than [`CacheLayer::max_entry_bytes`]. An answer is kept when it is there, whether or not its caller waits for
//! it: of a run that several callers share (a [`CoalesceLayer`](super::CoalesceLayer) inside), one is enough to have it kept. What began
//! before [`CacheLayer::clear`] or [`CacheLayer::invalidate`] was called is not kept when it ends.
//!
//! An entry is weighed with the size of its question and its answer, the memory that they hold on to, and what the
//! table needs for it. An entry past its time is not given any more, and takes room until it is found so or makes
//! room for another.
//!
//! # Where it belongs
//!
//! Inside whatever decides who may ask, since a hit asks nobody: authentication, rate limits. Outside of whatever the
//! work needs. A key without the tenant shares answers between tenants, who can tell by the time that an answer
//! takes what others have asked.
//!
//! # Readiness
//!
//! It is ready when the inner service is. A hit needs no place to run, but which call will be one is not known before
//! there is a request; a cache that is always ready would have to wait in its future, out of sight of load balancers and
//! shedders. Have a queue inside, such as [`PriorityQueueLayer`](super::PriorityQueueLayer): then it is ready while the machine is
//! full, and hits are answered at once. A hit leaves what was reserved for the next call.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one, and nothing is kept.

mod future;
mod layer;
mod service;
mod store;

pub use self::future::ResponseFuture;
pub use self::layer::CacheLayer;
pub use self::service::Cache;
pub use self::store::Store;
