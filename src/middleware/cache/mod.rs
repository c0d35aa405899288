//! Caches responses and returns them for equal requests.
//!
//! It differs from `tower-resilience`'s cache in that
//! * nothing is cached unless a [`CacheKey`](super::cache_key::CacheKey) says which requests are equal;
//! * a response is found by a digest of 128 bits and returned only if the keys are equal in full;
//! * it is bounded by the bytes that keys and responses take, not by their number;
//! * a hit allocates nothing.
//!
//! The table is [`quick_cache`]'s, which evicts entries that were requested once before those that are requested often.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::CacheLayer;
//! use tower_kernels::middleware::cache_key::Cacheable;
//!
//! struct Length(usize);
//! impl Cacheable for Length {
//!     fn to_cached(&self) -> Option<Self> {
//!         Some(Self(self.0))
//!     }
//!     fn to_response(&self) -> Self {
//!         Self(self.0)
//!     }
//!     fn weight(&self) -> usize {
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
//! let cache = cache.snapshot();
//! assert_eq!((cache.hits, cache.misses, cache.entries), (2, 1, 1));
//! # }
//! ```
//!
//! # What is cached
//!
//! Responses whose [`Cacheable::to_cached`](super::cache_key::Cacheable::to_cached) returns a copy, up to
//! [`max_entry_bytes`](CacheSnapshot::max_entry_bytes). Errors never are. A response is cached when the inner call ends, even
//! if it is shared with other calls (by a [`CoalesceLayer`](super::CoalesceLayer) inside). Responses of calls that began
//! before [`CacheLayer::clear`] or [`CacheLayer::invalidate`] are not cached.
//!
//! The size of an entry is that of its key and response, their heap memory, and the table's overhead. An expired entry takes
//! memory until it is looked up or evicted.
//!
//! # Where it belongs
//!
//! Inside the layers that decide who may call, such as authentication and rate limits, as a hit calls nothing. Outside of
//! what the work needs. A key without the tenant shares responses between tenants, who can tell from the latency of a
//! response what others have requested.
//!
//! # Readiness
//!
//! It is ready when the inner service is, as a hit is not known before the request. To return hits while the machine is
//! full, put a queue inside, such as [`PriorityQueueLayer`](super::PriorityQueueLayer). A hit leaves the readiness that the
//! inner service has reserved to the next call.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one, and nothing is cached.

mod future;
mod layer;
mod service;
mod store;

pub use self::future::ResponseFuture;
pub use self::layer::CacheLayer;
pub use self::service::Cache;
pub use self::store::{CacheSnapshot, Store};
