//! How long a call takes by itself.

use std::time::Duration;

use crate::middleware::derive::derive_debug;
use crate::middleware::per_share::{LearnedTime, Operation, OperationTimes};
use crate::request::{RequestContext, Share};
use crate::sync::Mutex;

/// Learns from how long calls took. Times are in nanoseconds.
pub trait Estimator {
    /// What is kept of a call, to learn from it.
    type Call;

    /// Whether the estimate of a call was measured or given, and is no guess.
    fn is_known(&self, call: &Self::Call) -> bool;

    /// Learns how long a call took by itself.
    fn observe(&self, call: &Self::Call, took: u64);

    /// Lowers the estimate of calls like one that was rejected because of it alone. Without this an estimate that is too high
    /// would reject all calls, and no call would correct it.
    fn decay(&self, call: &Self::Call);
}

/// [`Estimator`] of calls with a request `R`.
pub trait Estimate<R>: Estimator {
    /// Returns how long the call is expected to take.
    fn estimate(&self, request: &R) -> (u64, Self::Call);
}

/// An exponentially weighted mean, in which the newest value counts an eighth; zero until there is one.
///
/// After a few values in a row that are far lower, each further one counts half, so that a first value which is too high, as
/// that of a cold start is, does not last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    value: u64,
    /// Values in a row that were far lower.
    far_lower: u8,
}

/// Lower by this factor is far lower.
const FAR_LOWER: u64 = 4;
/// Far lower values in a row that are no coincidence.
const FAR_LOWER_IN_A_ROW: u8 = 3;

impl LearnedTime for Mean {
    fn observe(&mut self, value: u64) {
        let is_far_lower = value < self.value / FAR_LOWER;
        let mean = if self.value == 0 {
            value
        } else if is_far_lower && self.far_lower >= FAR_LOWER_IN_A_ROW {
            self.value.midpoint(value)
        } else {
            self.value - self.value / 8 + value / 8
        };
        self.value = mean.max(1);
        self.far_lower = if is_far_lower { self.far_lower.saturating_add(1) } else { 0 };
    }

    fn decay(&mut self) {
        self.value = (self.value - self.value / 32).max(1);
    }
}

/// Estimates a call by the mean of earlier calls of its [operation](RequestContext::operation) and
/// [share](RequestContext::share).
#[derive(Debug)]
pub struct LearnedEstimate(OperationTimes<Mean>);

/// A call with a learned estimate.
#[derive(Debug)]
pub struct LearnedCall {
    operation: Operation,
    share: Share,
    /// Whether calls of its operation and share have completed before.
    is_known: bool,
}

impl LearnedEstimate {
    pub(super) fn new() -> Self {
        Self(OperationTimes::new())
    }
}

impl Estimator for LearnedEstimate {
    type Call = LearnedCall;

    fn is_known(&self, call: &LearnedCall) -> bool {
        call.is_known
    }

    fn observe(&self, call: &LearnedCall, took: u64) {
        self.0.insert(&call.operation);
        self.0.observe(&call.operation, call.share, took);
    }

    fn decay(&self, call: &LearnedCall) {
        self.0.decay(&call.operation, call.share);
    }
}

impl<R: RequestContext> Estimate<R> for LearnedEstimate {
    fn estimate(&self, request: &R) -> (u64, LearnedCall) {
        let operation = self.0.operation(request.operation());
        let share = request.share().unwrap_or_default();
        let (mean, share, is_known) = match self.0.get(&operation) {
            Some(means) => {
                let own = means.get(share);
                // The calls of other shares are no measure of this one, but better than nothing for the calls behind it.
                (own.unwrap_or_else(|| means.overall()), share, own.is_some())
            }
            None if matches!(operation, Operation::Unlisted) => (self.0.overall(), share, true),
            // The first call of an operation counts for all shares.
            None => (Mean::default(), Share::COMMON, false),
        };
        (mean.value, LearnedCall { operation, share, is_known })
    }
}

/// Estimates a call by a closure, multiplied by the mean ratio of the actual time to what the closure returned.
pub struct CustomEstimate<F> {
    estimate: F,
    /// In units of 1 / [`ONE`].
    correction: Mutex<Mean>,
}

/// Small enough that a day per nanosecond fits.
const ONE: u64 = 1 << 16;
/// No single call changes the correction by more than this factor.
const MAX_RATIO: u64 = 64;

impl<F> CustomEstimate<F> {
    pub(super) fn new(estimate: F) -> Self {
        Self { estimate, correction: Mutex::new(Mean { value: ONE, far_lower: 0 }) }
    }
}

impl<F> Estimator for CustomEstimate<F> {
    /// What the closure returned.
    type Call = u64;

    fn is_known(&self, _uncorrected: &u64) -> bool {
        true
    }

    fn observe(&self, uncorrected: &u64, took: u64) {
        // Both are at most a day, so the product fits.
        if let Some(ratio) = (took * ONE).checked_div(*uncorrected) {
            self.correction.lock().observe(ratio.clamp(ONE / MAX_RATIO, ONE * MAX_RATIO));
        }
    }

    fn decay(&self, _uncorrected: &u64) {
        // Not below what the closure returns.
        let mut correction = self.correction.lock();
        if correction.value > ONE {
            correction.decay();
        }
    }
}

impl<R, F: Fn(&R) -> Duration> Estimate<R> for CustomEstimate<F> {
    fn estimate(&self, request: &R) -> (u64, u64) {
        let uncorrected = nanos((self.estimate)(request));
        let corrected = u128::from(uncorrected) * u128::from(self.correction.lock().value) / u128::from(ONE);
        (u64::try_from(corrected).unwrap_or(MAX_NANOS).min(MAX_NANOS), uncorrected)
    }
}

derive_debug!(CustomEstimate::<F> { correction });

/// The greatest estimate, a day: the sum over many calls still fits.
const MAX_NANOS: u64 = 24 * 3600 * 1_000_000_000;

/// Nanoseconds, up to a day.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(MAX_NANOS).min(MAX_NANOS)
}
