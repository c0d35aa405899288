//! Fits series: a [`Search`] from each of several starts, for the series of a [`Group`] in lockstep, and the groups on
//! the rayon pool.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::likelihood::{Group, MAX_LANES};
use super::normalize::Normalized;
use super::search::{ALPHA, BETA, Evaluation, MU, OMEGA, Search, Vector};
use super::{Mean, Status};
use crate::service::{Element, KernelError, RunContext};

/// A search starts from the best point of each list: a persistence, and values of alpha. The likelihood can have
/// several maxima, most often one at high and one at low persistence.
pub(super) const STARTS: [(f64, &[f64]); 5] = [
    (0.1, &[0.01, 0.05, 0.09]),
    (0.5, &[0.01, 0.1, 0.3]),
    (0.85, &[0.02, 0.08, 0.2]),
    (0.98, &[0.01]),
    (0.98, &[0.05, 0.15]),
];

/// The fit of one series, in units of its returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) mu: f64,
    pub(super) omega: f64,
    pub(super) alpha: f64,
    pub(super) beta: f64,
    pub(super) log_likelihood: f64,
    /// The conditional variance of the last return, and of the next one.
    pub(super) last_variance: f64,
    pub(super) next_variance: f64,
    pub(super) evaluations: u32,
    pub(super) status: Status,
}

impl Fit {
    /// The outcome of a series that cannot be fitted.
    pub(super) fn degenerate(status: Status) -> Self {
        let nan = f64::NAN;
        Self {
            mu: nan,
            omega: nan,
            alpha: nan,
            beta: nan,
            log_likelihood: nan,
            last_variance: nan,
            next_variance: nan,
            evaluations: 0,
            status,
        }
    }
}

/// Fits series of `len` returns each, which follow each other in `returns`.
///
/// # Errors
/// Those of [`RunContext::check`], which is called at least every tenth of a millisecond.
pub(super) fn fit_all<T: Element + Into<f64>>(
    returns: &[T],
    len: usize,
    mean: Mean,
    context: &RunContext<'_>,
) -> Result<Vec<Fit>, KernelError> {
    let arch = Arch::new();
    let lanes = arch.dispatch(Lanes);
    let groups: Result<Vec<Vec<Fit>>, KernelError> = returns
        .par_chunks(len * lanes)
        .map(|returns| arch.dispatch(FitGroup { returns, len, mean, context }))
        .collect();
    Ok(groups?.into_iter().flatten().collect())
}

/// How many series are fitted together.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F64_LANES
    }
}

/// Fits as many series as a register has lanes, or fewer.
struct FitGroup<'a, T> {
    returns: &'a [T],
    len: usize,
    mean: Mean,
    context: &'a RunContext<'a>,
}

impl<T: Element + Into<f64>> WithSimd for FitGroup<'_, T> {
    type Output = Result<Vec<Fit>, KernelError>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        match self.mean {
            Mean::Constant => self.fit::<S, true>(simd),
            Mean::Zero => self.fit::<S, false>(simd),
        }
    }
}

impl<T: Element + Into<f64>> FitGroup<'_, T> {
    #[inline(always)]
    fn fit<S: Simd, const MEAN: bool>(&self, simd: S) -> Result<Vec<Fit>, KernelError> {
        self.context.check()?;
        let series: Vec<&[T]> = self.returns.chunks(self.len).collect();
        let normalized: Vec<_> = series.iter().map(|series| Normalized::of(series, self.mean)).collect();
        let group = interleave(simd, &series, &normalized);
        let starts = best_starts(simd, &group, self.context)?;
        let mut searches: Vec<_> =
            starts[..series.len()].iter().map(|starts| Searches::new(starts, MEAN, self.len)).collect();
        for (searches, normalized) in searches.iter_mut().zip(&normalized) {
            if normalized.is_err() {
                searches.abandon();
            }
        }
        while searches.iter().any(|searches| !searches.is_done()) {
            let mut trials = [starts[0][0]; MAX_LANES];
            for (trial, searches) in trials.iter_mut().zip(&searches) {
                *trial = *searches.trial();
            }
            let evaluations = group.evaluate::<MEAN>(simd, &trials, self.context)?;
            for (searches, evaluation) in searches.iter_mut().zip(&evaluations) {
                searches.advance(evaluation);
            }
        }
        let fits =
            series.iter().zip(&normalized).zip(&searches).map(|((series, normalized), searches)| match normalized {
                Ok(normalized) => searches.finish(series, normalized),
                Err(status) => Fit::degenerate(*status),
            });
        Ok(fits.collect())
    }
}

/// The normalized series of a group, one for each lane. Lanes without a series, and those of a series that cannot be
/// normalized, hold ones.
#[inline(always)]
fn interleave<S: Simd, T: Element + Into<f64>>(
    simd: S,
    series: &[&[T]],
    normalized: &[Result<Normalized, Status>],
) -> Group<S> {
    let len = series.first().map_or(0, |series| series.len());
    let mut returns = Vec::with_capacity(len);
    for time in 0..len {
        let mut lanes = [1.0; MAX_LANES];
        for ((lane, series), normalized) in lanes.iter_mut().zip(series).zip(normalized) {
            if let Ok(normalized) = normalized {
                *lane = normalized.apply(series[time].into());
            }
        }
        returns.push(simd.partial_load_f64s(&lanes[..S::F64_LANES]));
    }
    let mut backcasts = [1.0; MAX_LANES];
    for (backcast, normalized) in backcasts.iter_mut().zip(normalized) {
        if let Ok(normalized) = normalized {
            *backcast = normalized.backcast;
        }
    }
    Group { returns, backcast: simd.partial_load_f64s(&backcasts[..S::F64_LANES]) }
}

/// The best point of each list of [`STARTS`], for each lane.
#[inline(always)]
fn best_starts<S: Simd>(
    simd: S,
    group: &Group<S>,
    context: &RunContext<'_>,
) -> Result<[[Vector; STARTS.len()]; MAX_LANES], KernelError> {
    let mut best = [[[0.0; 4]; STARTS.len()]; MAX_LANES];
    for (index, (persistence, alphas)) in STARTS.iter().enumerate() {
        let mut least = [f64::INFINITY; MAX_LANES];
        for &alpha in *alphas {
            let start = [1.0 - persistence, alpha, persistence - alpha, 0.0];
            let values = group.value(simd, &[start; MAX_LANES], context)?;
            for lane in 0..MAX_LANES {
                if values[lane] < least[lane] || alpha == alphas[0] {
                    (least[lane], best[lane][index]) = (values[lane], start);
                }
            }
        }
    }
    Ok(best)
}

/// The searches of one series from its starts, one after the other.
struct Searches<'a> {
    starts: &'a [Vector; STARTS.len()],
    has_mean: bool,
    len: usize,
    next_start: usize,
    current: Search,
    best: Option<Search>,
    evaluations: u32,
}

impl<'a> Searches<'a> {
    fn new(starts: &'a [Vector; STARTS.len()], has_mean: bool, len: usize) -> Self {
        let current = Search::new(starts[0], has_mean, len);
        Self { starts, has_mean, len, next_start: 1, current, best: None, evaluations: 0 }
    }

    /// Ends the searches of a series that cannot be fitted.
    fn abandon(&mut self) {
        self.next_start = self.starts.len() + 1;
    }

    fn is_done(&self) -> bool {
        self.next_start > self.starts.len()
    }

    fn trial(&self) -> &Vector {
        self.current.trial()
    }

    fn advance(&mut self, evaluation: &Evaluation) {
        if self.is_done() {
            return;
        }
        self.evaluations += 1;
        self.current.advance(evaluation);
        if self.current.outcome().is_none() {
            return;
        }
        if self.best.as_ref().is_none_or(|best| self.current.best().1 < best.best().1) {
            self.best = Some(self.current.clone());
        }
        if let Some(start) = self.starts.get(self.next_start) {
            self.current = Search::new(*start, self.has_mean, self.len);
        }
        self.next_start += 1;
    }

    /// The fit, with the conditional variances at the end of the series.
    fn finish<T: Element + Into<f64>>(&self, series: &[T], normalized: &Normalized) -> Fit {
        let Some(best) = &self.best else { return Fit::degenerate(Status::NotConverged) };
        let (point, value) = best.best();
        let variance = |square: f64, before: f64| point[OMEGA] + point[ALPHA] * square + point[BETA] * before;
        let (mut square, mut last) = (normalized.backcast, normalized.backcast);
        for &value in series {
            last = variance(square, last);
            square = (normalized.apply(value.into()) - point[MU]).powi(2);
        }
        let next = variance(square, last);
        let unit = normalized.scale * normalized.scale;
        let constant = 0.5 * std::f64::consts::TAU.ln() + normalized.scale.ln();
        Fit {
            mu: normalized.center + normalized.scale * point[MU],
            omega: unit * point[OMEGA],
            alpha: point[ALPHA],
            beta: point[BETA],
            log_likelihood: -value - series.len() as f64 * constant,
            last_variance: unit * last,
            next_variance: unit * next,
            evaluations: self.evaluations,
            status: if best.outcome() == Some(true) { Status::Converged } else { Status::NotConverged },
        }
    }
}
