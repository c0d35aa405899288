//! The Gaussian log-likelihood of GARCH(1,1), its gradient and its Hessian, for as many series at once as a vector
//! register has lanes.
//!
//! The derivatives of the conditional variance follow recursions of their own (Fiorentini, Calzolari and Panattoni,
//! *Analytic derivatives and the computation of GARCH estimates*, 1996), so one pass over a series gives all of them.

use pulp::Simd;

use super::search::{ALPHA, BETA, Evaluation, MU, OMEGA, Vector};
use crate::service::{KernelError, RunContext};

/// The most lanes of any vector register.
pub(super) const MAX_LANES: usize = 8;

/// Variances that are multiplied before their logarithm is taken. In units of the sample variance each is between 1e-8
/// and the number of returns, so the product stays in the range of `f64`.
const VARIANCES_PER_LOGARITHM: usize = 16;

/// Returns of a pass after which the context is checked: some tens of microseconds.
const RETURNS_PER_CHECK: usize = 1 << 10;

/// Series of the same length, one for each lane, normalized to mean 0 and variance 1.
pub(super) struct Group<S: Simd> {
    pub(super) returns: Vec<S::f64s>,
    /// The variance and the squared residual before the first return.
    pub(super) backcast: S::f64s,
}

/// Arithmetic of a vector register.
#[derive(Clone, Copy)]
struct Arithmetic<S>(S);

impl<S: Simd> Arithmetic<S> {
    #[inline(always)]
    fn number(self, value: f64) -> S::f64s {
        self.0.splat_f64s(value)
    }

    #[inline(always)]
    fn add(self, a: S::f64s, b: S::f64s) -> S::f64s {
        self.0.add_f64s(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::f64s, b: S::f64s) -> S::f64s {
        self.0.sub_f64s(a, b)
    }

    #[inline(always)]
    fn mul(self, a: S::f64s, b: S::f64s) -> S::f64s {
        self.0.mul_f64s(a, b)
    }

    #[inline(always)]
    fn div(self, a: S::f64s, b: S::f64s) -> S::f64s {
        self.0.div_f64s(a, b)
    }

    /// `a * b + c`.
    #[inline(always)]
    fn mul_add(self, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        self.0.mul_add_e_f64s(a, b, c)
    }

    #[inline(always)]
    fn lanes(self, values: S::f64s) -> [f64; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        self.0.partial_store_f64s(&mut lanes[..S::F64_LANES], values);
        lanes
    }
}

/// Sums the logarithms of variances.
struct LogSum<S: Simd> {
    product: S::f64s,
    count: usize,
    sum: [f64; MAX_LANES],
}

impl<S: Simd> LogSum<S> {
    #[inline(always)]
    fn new(arithmetic: Arithmetic<S>) -> Self {
        Self { product: arithmetic.number(1.0), count: 0, sum: [0.0; MAX_LANES] }
    }

    #[inline(always)]
    fn add(&mut self, arithmetic: Arithmetic<S>, variance: S::f64s) {
        self.product = arithmetic.mul(self.product, variance);
        self.count += 1;
        if self.count == VARIANCES_PER_LOGARITHM {
            self.flush(arithmetic);
        }
    }

    #[inline(always)]
    fn flush(&mut self, arithmetic: Arithmetic<S>) {
        let product = arithmetic.lanes(self.product);
        for (sum, product) in self.sum.iter_mut().zip(product).take(S::F64_LANES) {
            *sum += product.ln();
        }
        self.product = arithmetic.number(1.0);
        self.count = 0;
    }
}

impl<S: Simd> Group<S> {
    /// Returns half the sum of `ln h + e^2 / h` for each lane: the negative log-likelihood without its constant.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    #[inline(always)]
    pub(super) fn value(
        &self,
        simd: S,
        trials: &[Vector; MAX_LANES],
        context: &RunContext<'_>,
    ) -> Result<[f64; MAX_LANES], KernelError> {
        let arithmetic = Arithmetic(simd);
        let [omega, alpha, beta, mu] = parameters(simd, trials);
        let (mut variance, mut square) = (self.backcast, self.backcast);
        let mut squares = arithmetic.number(0.0);
        let mut logarithms = LogSum::new(arithmetic);
        for returns in self.returns.chunks(RETURNS_PER_CHECK) {
            context.check()?;
            for &value in returns {
                variance = arithmetic.mul_add(beta, variance, arithmetic.mul_add(alpha, square, omega));
                let residual = arithmetic.sub(value, mu);
                square = arithmetic.mul(residual, residual);
                squares = arithmetic.add(squares, arithmetic.div(square, variance));
                logarithms.add(arithmetic, variance);
            }
        }
        logarithms.flush(arithmetic);
        let squares = arithmetic.lanes(squares);
        Ok(std::array::from_fn(|lane| 0.5 * (squares[lane] + logarithms.sum[lane])))
    }

    /// As [`value`](Self::value), with the derivatives; those by mu only where `MEAN`.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    #[inline(always)]
    pub(super) fn evaluate<const MEAN: bool>(
        &self,
        simd: S,
        trials: &[Vector; MAX_LANES],
        context: &RunContext<'_>,
    ) -> Result<[Evaluation; MAX_LANES], KernelError> {
        let arithmetic = Arithmetic(simd);
        let trials = parameters(simd, trials);
        let mut sums = Sums::new(arithmetic);
        let mut state = State::new(arithmetic, self.backcast);
        // The first variance comes from the backcast, which does not depend on mu.
        let mut twice_alpha = arithmetic.number(0.0);
        for returns in self.returns.chunks(RETURNS_PER_CHECK) {
            context.check()?;
            for &value in returns {
                state.advance::<MEAN>(arithmetic, &trials, twice_alpha);
                twice_alpha = arithmetic.add(trials[ALPHA], trials[ALPHA]);
                state.residual = arithmetic.sub(value, trials[MU]);
                state.square = arithmetic.mul(state.residual, state.residual);
                sums.add::<MEAN>(arithmetic, &state);
            }
        }
        Ok(sums.finish(arithmetic))
    }
}

/// The parameters of all lanes, one register for each parameter.
#[inline(always)]
fn parameters<S: Simd>(simd: S, trials: &[Vector; MAX_LANES]) -> [S::f64s; 4] {
    let mut registers = [simd.splat_f64s(0.0); 4];
    for (index, register) in registers.iter_mut().enumerate() {
        let lanes: [f64; MAX_LANES] = std::array::from_fn(|lane| trials[lane][index]);
        *register = simd.partial_load_f64s(&lanes[..S::F64_LANES]);
    }
    registers
}

/// The conditional variance at one time, its derivatives, and the residual.
struct State<S: Simd> {
    variance: S::f64s,
    residual: S::f64s,
    square: S::f64s,
    /// First derivatives of the variance by omega, alpha, beta and mu.
    by: [S::f64s; 4],
    /// Its second derivatives that are not always 0.
    omega_beta: S::f64s,
    alpha_beta: S::f64s,
    beta_beta: S::f64s,
    mu_mu: S::f64s,
    mu_alpha: S::f64s,
    mu_beta: S::f64s,
}

impl<S: Simd> State<S> {
    #[inline(always)]
    fn new(arithmetic: Arithmetic<S>, backcast: S::f64s) -> Self {
        let zero = arithmetic.number(0.0);
        Self {
            variance: backcast,
            residual: zero,
            square: backcast,
            by: [zero; 4],
            omega_beta: zero,
            alpha_beta: zero,
            beta_beta: zero,
            mu_mu: zero,
            mu_alpha: zero,
            mu_beta: zero,
        }
    }

    /// Derives `h' = omega + alpha e^2 + beta h` once and twice. `twice_alpha` is the second derivative of `alpha e^2`
    /// by mu.
    #[inline(always)]
    fn advance<const MEAN: bool>(
        &mut self,
        arithmetic: Arithmetic<S>,
        [omega, alpha, beta, _]: &[S::f64s; 4],
        twice_alpha: S::f64s,
    ) {
        let grow = Recursion { arithmetic, beta: *beta };
        let [by_omega, by_alpha, by_beta, by_mu] = self.by;
        self.omega_beta = grow.next(self.omega_beta, by_omega);
        self.alpha_beta = grow.next(self.alpha_beta, by_alpha);
        self.beta_beta = grow.next(self.beta_beta, arithmetic.add(by_beta, by_beta));
        self.by[OMEGA] = grow.next(by_omega, arithmetic.number(1.0));
        self.by[ALPHA] = grow.next(by_alpha, self.square);
        self.by[BETA] = grow.next(by_beta, self.variance);
        if MEAN {
            let slope = arithmetic.mul(arithmetic.number(-2.0), self.residual);
            self.mu_mu = grow.next(self.mu_mu, twice_alpha);
            self.mu_alpha = grow.next(self.mu_alpha, slope);
            self.mu_beta = grow.next(self.mu_beta, by_mu);
            self.by[MU] = grow.next(by_mu, arithmetic.mul(*alpha, slope));
        }
        self.variance = grow.next(self.variance, arithmetic.mul_add(*alpha, self.square, *omega));
    }
}

/// `next = term + beta value`, which the variance and all of its derivatives follow.
struct Recursion<S: Simd> {
    arithmetic: Arithmetic<S>,
    beta: S::f64s,
}

impl<S: Simd> Recursion<S> {
    #[inline(always)]
    fn next(&self, value: S::f64s, term: S::f64s) -> S::f64s {
        self.arithmetic.mul_add(self.beta, value, term)
    }
}

/// Sums over a series.
struct Sums<S: Simd> {
    squares: S::f64s,
    logarithms: LogSum<S>,
    gradient: [S::f64s; 4],
    /// The lower triangle.
    hessian: [[S::f64s; 4]; 4],
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    fn new(arithmetic: Arithmetic<S>) -> Self {
        let zero = arithmetic.number(0.0);
        let logarithms = LogSum::new(arithmetic);
        Self { squares: zero, logarithms, gradient: [zero; 4], hessian: [[zero; 4]; 4] }
    }

    #[inline(always)]
    fn add<const MEAN: bool>(&mut self, arithmetic: Arithmetic<S>, state: &State<S>) {
        let [half, one] = [0.5, 1.0].map(|number| arithmetic.number(number));
        let parameters = if MEAN { 4 } else { 3 };
        let inverse = arithmetic.div(one, state.variance);
        let ratio = arithmetic.mul(state.square, inverse);
        let half_inverse = arithmetic.mul(half, inverse);
        // The first and the second derivative of (ln h + e^2 / h) / 2 by h.
        let first = arithmetic.mul(half_inverse, arithmetic.sub(one, ratio));
        let second =
            arithmetic.mul(arithmetic.mul(half_inverse, inverse), arithmetic.sub(arithmetic.add(ratio, ratio), one));

        self.squares = arithmetic.add(self.squares, ratio);
        self.logarithms.add(arithmetic, state.variance);
        for row in 0..parameters {
            self.gradient[row] = arithmetic.mul_add(first, state.by[row], self.gradient[row]);
            let weighted = arithmetic.mul(second, state.by[row]);
            for column in 0..=row {
                self.add_to_hessian(arithmetic, row, column, weighted, state.by[column]);
            }
        }
        self.add_to_hessian(arithmetic, BETA, OMEGA, first, state.omega_beta);
        self.add_to_hessian(arithmetic, BETA, ALPHA, first, state.alpha_beta);
        self.add_to_hessian(arithmetic, BETA, BETA, first, state.beta_beta);
        if MEAN {
            // e / h depends on mu by e as well: these are the derivatives through it.
            let scaled = arithmetic.mul(state.residual, inverse);
            let cross = arithmetic.mul(scaled, inverse);
            self.gradient[MU] = arithmetic.sub(self.gradient[MU], scaled);
            self.add_to_hessian(arithmetic, MU, MU, first, state.mu_mu);
            self.add_to_hessian(arithmetic, MU, ALPHA, first, state.mu_alpha);
            self.add_to_hessian(arithmetic, MU, BETA, first, state.mu_beta);
            for column in [OMEGA, ALPHA, BETA] {
                self.add_to_hessian(arithmetic, MU, column, cross, state.by[column]);
            }
            self.add_to_hessian(arithmetic, MU, MU, arithmetic.add(cross, cross), state.by[MU]);
            self.hessian[MU][MU] = arithmetic.add(self.hessian[MU][MU], inverse);
        }
    }

    #[inline(always)]
    fn add_to_hessian(&mut self, arithmetic: Arithmetic<S>, row: usize, column: usize, a: S::f64s, b: S::f64s) {
        self.hessian[row][column] = arithmetic.mul_add(a, b, self.hessian[row][column]);
    }

    #[inline(always)]
    fn finish(mut self, arithmetic: Arithmetic<S>) -> [Evaluation; MAX_LANES] {
        self.logarithms.flush(arithmetic);
        let squares = arithmetic.lanes(self.squares);
        let mut evaluations = [Evaluation::default(); MAX_LANES];
        for (lane, evaluation) in evaluations.iter_mut().enumerate() {
            evaluation.value = 0.5 * (squares[lane] + self.logarithms.sum[lane]);
        }
        for row in 0..4 {
            let gradient = arithmetic.lanes(self.gradient[row]);
            for lane in 0..MAX_LANES {
                evaluations[lane].gradient[row] = gradient[lane];
            }
            for column in 0..=row {
                let hessian = arithmetic.lanes(self.hessian[row][column]);
                for lane in 0..MAX_LANES {
                    evaluations[lane].hessian[row][column] = hessian[lane];
                    evaluations[lane].hessian[column][row] = hessian[lane];
                }
            }
        }
        evaluations
    }
}
