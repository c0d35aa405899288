//! What makes two requests ask for the same, and an answer one that can be given again: what [`CacheLayer`] and
//! [`CoalesceLayer`] have to know of requests and answers, and all that they know.
//!
//! Nothing is taken to be a repeat unless a [`Repeats`] says so. The shortest is a closure that returns a key, or `None`
//! for a request that is to be run each time that it is made:
//!
//! ```
//! use tower_kernels::layers::CoalesceLayer;
//!
//! let by_path = |request: &http::Request<()>| {
//!     (request.method() == http::Method::GET).then(|| request.uri().path().to_owned())
//! };
//! # fn takes<R, P: tower_kernels::middleware::cache_key::Repeats<R>>(_: &P) {}
//! # takes::<http::Request<()>, _>(&by_path);
//! ```
//!
//! # What belongs into the key
//!
//! All that the answer depends on, and whoever may not learn of the others. A caller who is answered sooner than the
//! work takes knows that somebody has asked the same, so a key that leaves the tenant out tells tenants of each other.
//! What only says how a request is to be run, such as its deadline, priority and trace, does not belong there.
//!
//! Requests are found by a digest of 128 bits ([XXH3], with a seed of the process's own) and then compared in full:
//! two requests with one digest are no repeats, they only cost each other the benefit.
//!
//! For kernels it is [`KernelCacheKey`](crate::service::KernelCacheKey).
//!
//! [`CacheLayer`]: super::CacheLayer
//! [`CoalesceLayer`]: super::CoalesceLayer
//! [XXH3]: https://xxhash.com

mod digest;
mod weigh;

use std::hash::Hash;

pub(super) use self::digest::ByDigest;
pub use self::weigh::Weigh;

/// Which requests ask for the same. The [module](self) says what belongs into a key.
///
/// A request's [`Question`](Self::Question) borrows from it, so that to look for a repeat copies nothing; it is turned
/// into a [`Kept`](Self::Kept) only where there is none. Closures `Fn(&R) -> Option<K>` implement it, where `K` is
/// `Hash + Eq` and a [`Weigh`]; theirs is one and the same type.
pub trait Repeats<R> {
    /// What a request asks, as far as the answer depends on it.
    type Question<'r>: Hash
    where
        Self: 'r,
        R: 'r;
    /// A question that outlives its request.
    type Kept: Send + Sync + 'static;

    /// What `request` asks; `None` where it is to be run whatever others ask.
    fn question<'r>(&'r self, request: &'r R) -> Option<Self::Question<'r>>;

    /// Whether `kept` is this very question: the full comparison.
    fn is_same(&self, kept: &Self::Kept, question: &Self::Question<'_>) -> bool;

    /// The question, to be held for as long as its request runs: clones of what is shared, and no copies.
    fn hold(&self, question: Self::Question<'_>) -> Self::Kept;

    /// What was held, to be kept from now on: with memory of its own, so that nothing larger than
    /// [`weigh`](Self::weigh) says stays in use because of it.
    fn keep(&self, held: Self::Kept) -> Self::Kept {
        held
    }

    /// The bytes of memory that a kept question holds on to, besides its own size.
    fn weigh(&self, kept: &Self::Kept) -> usize;

    /// What questions are found by before they are compared. There is hardly a reason to choose another.
    #[inline]
    fn digest(&self, question: &Self::Question<'_>) -> u128 {
        digest::of(question)
    }
}

impl<R, K, F> Repeats<R> for F
where
    F: Fn(&R) -> Option<K>,
    K: Hash + Eq + Weigh + Send + Sync + 'static,
{
    type Question<'r>
        = K
    where
        Self: 'r,
        R: 'r;
    type Kept = K;

    #[inline]
    fn question<'r>(&'r self, request: &'r R) -> Option<K> {
        self(request)
    }

    #[inline]
    fn is_same(&self, kept: &K, question: &K) -> bool {
        kept == question
    }

    #[inline]
    fn hold(&self, question: K) -> K {
        question
    }

    fn weigh(&self, kept: &K) -> usize {
        kept.weigh()
    }
}

/// An answer that can be given again.
pub trait Repeatable: Sized {
    /// A copy to be kept, with memory of its own, so that nothing larger than [`weigh`](Self::weigh) says stays in use
    /// because of it. `None` where this answer is not to be given again, as it is a refusal or of one call only.
    fn keep(&self) -> Option<Self>;

    /// A kept answer, to be given to another caller. It says of itself how *that* call was answered.
    fn repeat(&self) -> Self;

    /// The bytes of memory that it holds on to, besides its own size.
    fn weigh(&self) -> usize;
}
