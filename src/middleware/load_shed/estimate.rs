//! How long a call will take by itself.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::middleware::per_share::{Forget, PerShare};
use crate::request::operation_table::{OperationIndex, OperationTable, insertable_name};
use crate::request::{RequestContext, Share};

/// Learns from how long calls took. Times are in nanoseconds.
pub trait Estimator {
    /// What is kept of a call, to learn from.
    type Call;

    /// Whether what it is expected to take has been measured, or was given, and is no guess.
    fn knows(&self, call: &Self::Call) -> bool {
        let _ = call;
        true
    }

    /// The call took so long by itself.
    fn observe(&self, call: &Self::Call, took: u64);

    /// A call was refused on the strength of its own estimate alone. One that is too high would never be put right, as
    /// no call would show it, so each such refusal takes something off.
    fn doubt(&self, call: &Self::Call);
}

/// [`Estimator`] of calls with an `R`.
pub trait Estimate<R>: Estimator {
    /// How long the call is expected to take.
    fn estimate(&self, request: &R) -> (u64, Self::Call);
}

/// An exponentially weighted mean that gives the newest an eighth; 0 stands for nothing known.
///
/// A first value that is too high by a factor, as that of a cold start is, would be in it for long: after a few values in a
/// row that are far lower, each further one counts half. The highest byte counts them, the rest is the mean.
#[derive(Debug, Default)]
pub(super) struct Mean(AtomicU64);

const LOWER_SHIFT: u32 = 56;
const VALUE: u64 = (1 << LOWER_SHIFT) - 1;
/// Lower by this factor is far lower.
const FAR: u64 = 4;
/// So many in a row are no chance.
const FEW: u64 = 3;

impl Mean {
    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & VALUE
    }

    /// Of two that add at the same time one may be lost, which a mean can do without.
    #[inline]
    fn add(&self, value: u64) {
        let packed = self.0.load(Ordering::Relaxed);
        let (mean, lower) = (packed & VALUE, packed >> LOWER_SHIFT);
        let far_lower = value < mean / FAR;
        let next = if mean == 0 {
            value
        } else if far_lower && lower >= FEW {
            mean.midpoint(value)
        } else {
            mean - mean / 8 + value / 8
        };
        let lower = if far_lower { (lower + 1).min(FEW) } else { 0 };
        self.0.store(next.clamp(1, VALUE) | lower << LOWER_SHIFT, Ordering::Relaxed);
    }

    fn shave(&self) {
        let packed = self.0.load(Ordering::Relaxed);
        let mean = packed & VALUE;
        self.0.store((mean - mean / 32).max(1) | packed & !VALUE, Ordering::Relaxed);
    }
}

impl Forget for Mean {
    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The mean of what calls of an [operation](RequestContext::operation) took, for each [share](RequestContext::share) apart.
#[derive(Debug)]
pub struct Learned {
    operations: OperationTable<PerShare<Mean>>,
    /// Of all calls: what those are expected to take that are of one of too many operations.
    all: Mean,
}

/// Names beyond these have no mean of their own.
const MAX_OPERATIONS: usize = 512;

/// What a call was an example of.
#[derive(Debug)]
pub enum Example {
    /// An operation that has been answered before.
    Known {
        /// Which.
        at: OperationIndex,
        /// The share that it is served from.
        share: Share,
        /// Whether that share has had an answer.
        is_measured: bool,
    },
    /// A name that is known once it is answered.
    New(Box<str>),
    /// One of too many.
    Other,
}

impl Learned {
    pub(super) fn new() -> Self {
        Self { operations: OperationTable::new(MAX_OPERATIONS), all: Mean::default() }
    }

    /// An operation has been answered for the first time.
    #[inline(never)]
    fn meet(&self, name: &str, took: u64) {
        if let Some((_, means)) = self.operations.find_or_insert(name, PerShare::default) {
            means.all.add(took);
        }
    }
}

impl Estimator for Learned {
    type Call = Example;

    fn knows(&self, call: &Example) -> bool {
        matches!(call, Example::Known { is_measured: true, .. } | Example::Other)
    }

    #[inline]
    fn observe(&self, call: &Example, took: u64) {
        self.all.add(took);
        match call {
            Example::Known { at, share, .. } => {
                let means = &self.operations[*at];
                means.all.add(took);
                if let Some(own) = means.get_or_take(*share) {
                    own.add(took);
                }
            }
            Example::New(name) => self.meet(name, took),
            Example::Other => {}
        }
    }

    fn doubt(&self, call: &Example) {
        match call {
            Example::Known { at, share, .. } => {
                self.operations[*at].get(*share).inspect(|mean| mean.shave());
            }
            Example::New(_) | Example::Other => self.all.shave(),
        }
    }
}

impl<R: RequestContext> Estimate<R> for Learned {
    /// Nothing for what has not been measured: a guess is no reason to refuse a call.
    #[inline]
    fn estimate(&self, request: &R) -> (u64, Example) {
        let name = request.operation();
        if let Some((at, means)) = self.operations.find(name) {
            let share = request.share().unwrap_or_default();
            let own = means.get(share);
            // What calls of others took is no measure of this one's, and better than nothing for what is behind it.
            let estimate = own.unwrap_or(&means.all).get();
            return (estimate, Example::Known { at, share, is_measured: own.is_some() });
        }
        if self.operations.is_full() {
            (self.all.get(), Example::Other)
        } else {
            (0, Example::New(insertable_name(name).into()))
        }
    }
}

/// What a closure says, times by how much calls have been longer than it said.
pub struct Given<F> {
    estimate: F,
    /// In parts of [`ONE`].
    correction: Mean,
}

/// Small enough that a day over a nanosecond can be told in it.
const ONE: u64 = 1 << 16;

impl<F> Given<F> {
    pub(super) fn new(estimate: F) -> Self {
        Self { estimate, correction: Mean(AtomicU64::new(ONE)) }
    }
}

impl<F> Estimator for Given<F> {
    /// What the closure said.
    type Call = u64;

    fn observe(&self, said: &u64, took: u64) {
        // Both are at most a day, which is little enough to be told in `ONE`s.
        if let Some(ratio) = (took * ONE).checked_div(*said) {
            // No single call says more than that the estimates are off by 64.
            self.correction.add(ratio.clamp(ONE / 64, ONE * 64));
        }
    }

    fn doubt(&self, _said: &u64) {
        // What the closure says is believed; what was put on top of it is not for ever.
        if self.correction.get() > ONE {
            self.correction.shave();
        }
    }
}

impl<R, F: Fn(&R) -> Duration> Estimate<R> for Given<F> {
    fn estimate(&self, request: &R) -> (u64, u64) {
        let said = nanos((self.estimate)(request));
        let corrected = u128::from(said) * u128::from(self.correction.get()) / u128::from(ONE);
        (u64::try_from(corrected).unwrap_or(MOST).min(MOST), said)
    }
}

impl<F> fmt::Debug for Given<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("correction", &(self.correction.get() as f64 / ONE as f64))
            .finish_non_exhaustive()
    }
}

/// The longest that a call counts with, a day: the sum of many that claim to take for ever still fits.
const MOST: u64 = 24 * 3600 * 1_000_000_000;

#[inline]
pub(super) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(MOST)
}
