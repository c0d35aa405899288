//! What decides how many may be inside: a number, or an algorithm that learns it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{AnyError, ErrorKind};
use crate::middleware::clock;
use crate::request::{RequestContext, ResponseContext};

/// An algorithm that learns from how calls end how many there should be at a time.
///
/// [`Aimd`](super::Aimd) and [`Gradient`](super::Gradient) are two; one of your own is two methods:
///
/// ```
/// use tower_kernels::middleware::concurrency::{Algorithm, ConcurrencyLayer, Outcome, Sample};
///
/// /// Halves at the first sign of overload, and stays there.
/// #[derive(Clone, Debug)]
/// struct OnceBurnt(usize);
///
/// impl Algorithm for OnceBurnt {
///     fn limit(&self) -> usize {
///         self.0
///     }
///     fn observe(&mut self, call: &Sample) {
///         if call.outcome == Outcome::Overloaded {
///             self.0 = (self.0 / 2).max(1);
///         }
///     }
/// }
///
/// let layer = ConcurrencyLayer::adaptive(OnceBurnt(64));
/// assert_eq!(layer.limit(), 64);
/// ```
pub trait Algorithm: Send {
    /// How many calls there may be at a time. With none nothing ends, so nothing is learnt any more.
    fn limit(&self) -> usize;

    /// A call has ended. Those that ended in a way that says nothing of the load are not told.
    fn observe(&mut self, call: &Sample);
}

/// A call that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// When the inner service was called.
    pub began: Instant,
    /// When the answer was there.
    pub ended: Instant,
    /// How many places were taken when it began, its own included.
    pub in_flight: usize,
    /// How it ended.
    pub outcome: Outcome,
}

impl Sample {
    /// A call, for tests of an algorithm.
    pub fn new(began: Instant, ended: Instant, in_flight: usize, outcome: Outcome) -> Self {
        Self { began, ended, in_flight, outcome }
    }

    /// How long the call took.
    pub fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

/// How a call ended, as far as it speaks of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// With an answer.
    Done,
    /// [`Overloaded`](ErrorKind::Overloaded) or [`DeadlineExceeded`](ErrorKind::DeadlineExceeded), in the error or in
    /// the response; or it was dropped after its deadline, which is how a timeout further out ends it.
    Overloaded,
}

/// A number of calls.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Fixed;

/// As many calls as an [`Algorithm`] says.
#[derive(Debug)]
pub struct Adaptive<A> {
    algorithm: Mutex<A>,
}

impl<A: Algorithm> Adaptive<A> {
    pub(super) fn new(algorithm: A) -> Self {
        Self { algorithm: Mutex::new(algorithm) }
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&A) -> T) -> T {
        look(&self.algorithm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn observe(&self, call: &Sample, resize: impl FnOnce(usize)) {
        // Locked until the new limit is set, so that of two the later one stays.
        let mut algorithm = self.algorithm.lock().unwrap_or_else(PoisonError::into_inner);
        let before = algorithm.limit();
        algorithm.observe(call);
        let limit = algorithm.limit();
        if limit != before {
            resize(limit);
        }
    }
}

/// What a layer is told of its calls: [`Fixed`] and [`Adaptive`] are all there are.
pub trait Limit {
    /// What is kept of a call until it ends.
    type Mark;
    /// Whether the limit ever changes by what is observed.
    const CHANGES: bool;

    /// The call was dropped.
    fn cancelled(&self, mark: Self::Mark, resize: impl FnOnce(usize));
}

/// [`Limit`] of calls with an `R`.
pub trait Begin<R>: Limit {
    /// The call begins.
    fn begin(&self, request: &R, in_flight: impl FnOnce() -> usize) -> Self::Mark;
}

/// [`Limit`] of calls that end with `T` or `E`.
pub trait End<T, E>: Limit {
    /// The call has ended.
    fn end(&self, mark: Self::Mark, result: &Result<T, E>, resize: impl FnOnce(usize));
}

impl Limit for Fixed {
    type Mark = ();
    const CHANGES: bool = false;

    #[inline]
    fn cancelled(&self, (): (), _resize: impl FnOnce(usize)) {}
}

impl<R> Begin<R> for Fixed {
    #[inline]
    fn begin(&self, _request: &R, _in_flight: impl FnOnce() -> usize) {}
}

impl<T, E> End<T, E> for Fixed {
    #[inline]
    fn end(&self, (): (), _result: &Result<T, E>, _resize: impl FnOnce(usize)) {}
}

/// The beginning of a call.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    began: Instant,
    deadline: Option<Instant>,
    in_flight: usize,
}

impl Mark {
    fn sample(self, ended: Instant, outcome: Outcome) -> Sample {
        Sample { began: self.began, ended, in_flight: self.in_flight, outcome }
    }
}

impl<A: Algorithm> Limit for Adaptive<A> {
    type Mark = Mark;
    const CHANGES: bool = true;

    fn cancelled(&self, mark: Mark, resize: impl FnOnce(usize)) {
        let now = clock::read();
        if mark.deadline.is_some_and(|deadline| deadline <= now) {
            self.observe(&mark.sample(now, Outcome::Overloaded), resize);
        }
    }
}

impl<A: Algorithm, R: RequestContext> Begin<R> for Adaptive<A> {
    #[inline]
    fn begin(&self, request: &R, in_flight: impl FnOnce() -> usize) -> Mark {
        Mark { began: clock::now(), deadline: request.deadline(), in_flight: in_flight() }
    }
}

impl<A: Algorithm, T: ResponseContext, E: AnyError> End<T, E> for Adaptive<A> {
    fn end(&self, mark: Mark, result: &Result<T, E>, resize: impl FnOnce(usize)) {
        let failure = match result {
            Ok(response) => response.failure(),
            Err(error) => Some(error.classify().kind),
        };
        let outcome = match failure {
            None => Outcome::Done,
            Some(ErrorKind::Overloaded | ErrorKind::DeadlineExceeded) => Outcome::Overloaded,
            // A wrong request is refused quickly, whatever the load, and a device that is gone is not a full one.
            Some(_) => return,
        };
        self.observe(&mark.sample(clock::read(), outcome), resize);
    }
}
