//! What sets the limit: a constant, or an algorithm that learns it from calls.

use std::fmt;
use std::time::{Duration, Instant};

use super::permits::Permits;
use crate::error::{AnyError, ErrorKind};
use crate::middleware::clock;
use crate::request::{RequestContext, ResponseContext};
use crate::sync::Mutex;

/// An algorithm that derives the concurrency limit from how calls end.
///
/// [`Aimd`](super::Aimd) and [`Gradient`](super::Gradient) implement it; an implementation has two methods:
///
/// ```
/// use tower_kernels::middleware::concurrency::{Algorithm, ConcurrencyLayer, Outcome, Sample};
///
/// /// Halves the limit at each sign of overload, and never raises it.
/// #[derive(Clone, Debug)]
/// struct HalveOnOverload(usize);
///
/// impl Algorithm for HalveOnOverload {
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
/// let layer = ConcurrencyLayer::adaptive(HalveOnOverload(64));
/// assert_eq!(layer.snapshot().limit, 64);
/// ```
pub trait Algorithm: Send {
    /// Returns how many calls may run at a time. With 0 no call ends, so nothing more is learned.
    fn limit(&self) -> usize;

    /// Learns from a call that has ended. Calls whose end says nothing about the load are left out.
    fn observe(&mut self, call: &Sample);
}

/// A call that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// When the inner service was called.
    pub started: Instant,
    /// When the call ended.
    pub finished: Instant,
    /// Permits in use when it started, its own included.
    pub in_flight: usize,
    /// How it ended.
    pub outcome: Outcome,
}

impl Sample {
    /// Creates a sample, for tests of an algorithm.
    pub fn new(started: Instant, finished: Instant, in_flight: usize, outcome: Outcome) -> Self {
        Self { started, finished, in_flight, outcome }
    }

    /// Returns how long the call took.
    pub fn latency(&self) -> Duration {
        self.finished.saturating_duration_since(self.started)
    }
}

/// What the end of a call says about the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The call succeeded.
    Success,
    /// The call failed as [`Overloaded`](ErrorKind::Overloaded) or [`DeadlineExceeded`](ErrorKind::DeadlineExceeded), by an
    /// error or a response, or was dropped after its deadline, as a timeout around this layer does.
    Overloaded,
}

/// A constant limit.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Fixed;

/// A limit set by an [`Algorithm`].
#[derive(Debug)]
pub struct Adaptive<A> {
    pub(super) algorithm: Mutex<A>,
}

impl<A: Algorithm> Adaptive<A> {
    pub(super) fn new(algorithm: A) -> Self {
        Self { algorithm: Mutex::new(algorithm) }
    }

    fn observe(&self, mark: Mark, finished: Instant, outcome: Outcome, permits: &Permits<Self>) {
        let Mark { started, in_flight, .. } = mark;
        {
            // Locked until the new limit is set, so that the later of two limits stays.
            let mut algorithm = self.algorithm.lock();
            let before = algorithm.limit();
            algorithm.observe(&Sample { started, finished, in_flight, outcome });
            let limit = algorithm.limit();
            if limit == before {
                return;
            }
            permits.resize(limit);
        }
        permits.grant();
    }
}

/// How a limit learns from calls. Implemented by [`Fixed`] and [`Adaptive`] alone.
pub trait Limit: Sized {
    /// What is kept of a call until it ends.
    type Mark: fmt::Debug;

    /// Learns from a call that was dropped.
    fn cancelled(&self, mark: Self::Mark, permits: &Permits<Self>);
}

/// [`Limit`] of calls with a request `R`.
pub trait StartCall<R>: Limit {
    /// A call starts.
    fn start(&self, request: &R, permits: &Permits<Self>) -> Self::Mark;
}

/// [`Limit`] of calls that end with `T` or `E`.
pub trait FinishCall<T, E>: Limit {
    /// Learns from a call that has ended.
    fn finish(&self, mark: Self::Mark, result: &Result<T, E>, permits: &Permits<Self>);
}

impl Limit for Fixed {
    type Mark = ();

    fn cancelled(&self, (): (), _permits: &Permits<Self>) {}
}

impl<R> StartCall<R> for Fixed {
    fn start(&self, _request: &R, _permits: &Permits<Self>) {}
}

impl<T, E> FinishCall<T, E> for Fixed {
    fn finish(&self, (): (), _result: &Result<T, E>, _permits: &Permits<Self>) {}
}

/// The start of a call.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    started: Instant,
    deadline: Option<Instant>,
    in_flight: usize,
}

impl<A: Algorithm> Limit for Adaptive<A> {
    type Mark = Mark;

    fn cancelled(&self, mark: Mark, permits: &Permits<Self>) {
        let now = clock::read();
        if mark.deadline.is_some_and(|deadline| deadline <= now) {
            self.observe(mark, now, Outcome::Overloaded, permits);
        }
    }
}

impl<A: Algorithm, R: RequestContext> StartCall<R> for Adaptive<A> {
    fn start(&self, request: &R, permits: &Permits<Self>) -> Mark {
        let in_flight = permits.snapshot().in_flight;
        Mark { started: clock::now(), deadline: request.deadline(), in_flight }
    }
}

impl<A: Algorithm, T: ResponseContext, E: AnyError> FinishCall<T, E> for Adaptive<A> {
    fn finish(&self, mark: Mark, result: &Result<T, E>, permits: &Permits<Self>) {
        let failure = match result {
            Ok(response) => response.failure(),
            Err(error) => Some(error.classify().kind),
        };
        let outcome = match failure {
            None => Outcome::Success,
            Some(ErrorKind::Overloaded | ErrorKind::DeadlineExceeded) => Outcome::Overloaded,
            // An invalid request is rejected quickly whatever the load, and a device that is lost is not a full one.
            Some(_) => return,
        };
        self.observe(mark, clock::read(), outcome, permits);
    }
}
