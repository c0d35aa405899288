//! [`Search`]: the constrained Newton iteration that fits one series.
//!
//! Minimizes the negative log-likelihood over `omega >= OMEGA_MIN`, `alpha >= 0`, `beta >= 0`, `alpha + beta <= 1` by
//! an active-set method (Gill and Murray, *Newton-type methods for unconstrained and linearly constrained
//! optimization*, 1974). A step is a Newton step within the active constraints, with a Levenberg-Marquardt shift where
//! the Hessian is not positive definite or where a step did not improve the likelihood. `volatility_analysis.cu` has
//! the same iteration.

/// The smallest omega, in units of the sample variance, as `arch` has it.
pub(super) const OMEGA_MIN: f64 = 1e-8;

/// Evaluations of the likelihood and its derivatives after which a search gives up.
pub(super) const MAX_EVALUATIONS: u32 = 200;

/// Parameters: omega, alpha, beta, mu. The series is normalized to mean 0 and variance 1.
pub(super) type Vector = [f64; 4];

pub(super) const OMEGA: usize = 0;
pub(super) const ALPHA: usize = 1;
pub(super) const BETA: usize = 2;
pub(super) const MU: usize = 3;

/// The negative log-likelihood at a point, without its constant, and its derivatives.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evaluation {
    pub(super) value: f64,
    pub(super) gradient: Vector,
    pub(super) hessian: [Vector; 4],
}

/// The inequality constraints that hold with equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ActiveSet(u8);

const OMEGA_AT_MIN: u8 = 1;
const ALPHA_ZERO: u8 = 2;
const BETA_ZERO: u8 = 4;
const UNIT_ROOT: u8 = 8;
const CONSTRAINTS: [u8; 4] = [OMEGA_AT_MIN, ALPHA_ZERO, BETA_ZERO, UNIT_ROOT];

/// Distance from a constraint; negative outside.
fn slack(constraint: u8, point: &Vector) -> f64 {
    match constraint {
        OMEGA_AT_MIN => point[OMEGA] - OMEGA_MIN,
        ALPHA_ZERO => point[ALPHA],
        BETA_ZERO => point[BETA],
        _ => 1.0 - point[ALPHA] - point[BETA],
    }
}

/// How fast the slack of a constraint grows along a direction.
fn slack_rate(constraint: u8, direction: &Vector) -> f64 {
    match constraint {
        OMEGA_AT_MIN => direction[OMEGA],
        ALPHA_ZERO => direction[ALPHA],
        BETA_ZERO => direction[BETA],
        _ => -direction[ALPHA] - direction[BETA],
    }
}

impl ActiveSet {
    fn has(self, constraint: u8) -> bool {
        self.0 & constraint != 0
    }

    /// Directions that keep the active constraints active: omega, two of the plane of alpha and beta, mu. Zero where
    /// there is none.
    fn directions(self, has_mean: bool) -> [Vector; 4] {
        let mut directions = [[0.0; 4]; 4];
        if !self.has(OMEGA_AT_MIN) {
            directions[0][OMEGA] = 1.0;
        }
        match self.0 & (ALPHA_ZERO | BETA_ZERO | UNIT_ROOT) {
            0 => {
                directions[1][ALPHA] = 1.0;
                directions[2][BETA] = 1.0;
            }
            ALPHA_ZERO => directions[2][BETA] = 1.0,
            BETA_ZERO => directions[1][ALPHA] = 1.0,
            UNIT_ROOT => {
                directions[1][ALPHA] = 1.0;
                directions[1][BETA] = -1.0;
            }
            // Two constraints: a corner.
            _ => {}
        }
        if has_mean {
            directions[3][MU] = 1.0;
        }
        directions
    }

    /// The active constraint with the most negative Lagrange multiplier: the likelihood grows away from it.
    fn to_release(self, gradient: &Vector) -> Option<u8> {
        let [alpha, beta] = [gradient[ALPHA], gradient[BETA]];
        let multiplier = |constraint| match (constraint, self.0 & (ALPHA_ZERO | BETA_ZERO | UNIT_ROOT)) {
            (OMEGA_AT_MIN, _) => gradient[OMEGA],
            (UNIT_ROOT, UNIT_ROOT) => -0.5 * (alpha + beta),
            (UNIT_ROOT, plane) if plane & ALPHA_ZERO != 0 => -beta,
            (UNIT_ROOT, _) => -alpha,
            (ALPHA_ZERO, plane) if plane & UNIT_ROOT != 0 => alpha - beta,
            (ALPHA_ZERO, _) => alpha,
            (_, plane) if plane & UNIT_ROOT != 0 => beta - alpha,
            (_, _) => beta,
        };
        let mut most = None;
        let mut least = 0.0;
        for constraint in CONSTRAINTS {
            if self.has(constraint) && multiplier(constraint) < least {
                (most, least) = (Some(constraint), multiplier(constraint));
            }
        }
        most
    }
}

/// A search for the maximum of one series' likelihood. It asks for the likelihood at [`trial`](Self::trial), and takes
/// the evaluation by [`advance`](Self::advance).
#[derive(Debug, Clone)]
pub(super) struct Search {
    has_mean: bool,
    /// The best point and what is known of it.
    point: Vector,
    at_point: Evaluation,
    active: ActiveSet,
    /// The point to be evaluated, the constraint that it reaches, and the decrease that the quadratic model expects.
    trial: Vector,
    reached: u8,
    expected_decrease: f64,
    /// The Levenberg-Marquardt shift, relative to the diagonal of the Hessian.
    shift: f64,
    evaluations: u32,
    /// What rounding may change of the likelihood.
    noise: f64,
    outcome: Option<bool>,
}

impl Search {
    /// A search from a feasible point for a series of `len` returns.
    pub(super) fn new(start: Vector, has_mean: bool, len: usize) -> Self {
        Self {
            has_mean,
            point: start,
            at_point: Evaluation { value: f64::INFINITY, ..Evaluation::default() },
            active: ActiveSet(0),
            trial: start,
            reached: 0,
            expected_decrease: 0.0,
            shift: 0.0,
            evaluations: 0,
            noise: 1e-14 * len as f64,
            outcome: None,
        }
    }

    /// The point whose evaluation the search waits for.
    pub(super) fn trial(&self) -> &Vector {
        &self.trial
    }

    /// Whether it has ended, and then whether it has converged.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.outcome
    }

    /// The best point, and the negative log-likelihood there.
    pub(super) fn best(&self) -> (&Vector, f64) {
        (&self.point, self.at_point.value)
    }

    /// Takes the evaluation of the trial point, and chooses the next one or ends.
    pub(super) fn advance(&mut self, at_trial: &Evaluation) {
        self.evaluations += 1;
        let decrease = self.at_point.value - at_trial.value;
        // Not so for NaN either.
        if decrease >= 1e-4 * self.expected_decrease - self.noise {
            self.shift = if decrease > 0.5 * self.expected_decrease { 0.1 * self.shift } else { self.shift };
            self.shift = if self.shift < 1e-7 { 0.0 } else { self.shift };
            self.point = self.trial;
            self.at_point = *at_trial;
            self.active.0 |= self.reached;
        } else {
            self.shift = (8.0 * self.shift).max(1e-3);
        }
        if self.evaluations >= MAX_EVALUATIONS {
            self.outcome = Some(false);
        } else if !self.propose() {
            self.outcome = Some(true);
        }
    }

    /// Chooses the next trial point; `false` where no step improves the likelihood.
    fn propose(&mut self) -> bool {
        // Each constraint is released at most twice: a bound for the case that rounding makes them alternate.
        for _ in 0..2 * CONSTRAINTS.len() {
            let step = self.newton_step();
            let length = self.feasible_length(&step);
            if self.expected_decrease > 1e-11 + self.noise {
                for (index, trial) in self.trial.iter_mut().enumerate() {
                    *trial = self.point[index] + length * step[index];
                }
                self.expected_decrease *= length * (2.0 - length);
                self.land();
                return true;
            }
            let Some(constraint) = self.active.to_release(&self.at_point.gradient) else { return false };
            self.active.0 &= !constraint;
        }
        false
    }

    /// The step within the active constraints that minimizes the shifted quadratic model.
    fn newton_step(&mut self) -> Vector {
        let directions = self.active.directions(self.has_mean);
        let Evaluation { gradient, hessian, .. } = &self.at_point;
        let along = |a: &Vector, b: &Vector| -> f64 {
            (0..4).map(|row| a[row] * (0..4).map(|column| hessian[row][column] * b[column]).sum::<f64>()).sum()
        };
        let mut reduced = [[0.0; 4]; 4];
        let mut slope = [0.0; 4];
        for row in 0..4 {
            slope[row] = -(0..4).map(|index| directions[row][index] * gradient[index]).sum::<f64>();
            for column in 0..=row {
                reduced[row][column] = along(&directions[row], &directions[column]);
            }
        }
        let scales: Vector = std::array::from_fn(|index| {
            let is_free = directions[index].iter().any(|&part| part != 0.0);
            if is_free { reduced[index][index].abs().max(1e-6) } else { 0.0 }
        });
        let mut shift = self.shift;
        let solution = loop {
            if let Some(solution) = solve(&reduced, &slope, &scales, shift) {
                break solution;
            }
            shift = (4.0 * shift).max(1e-3);
        };
        self.shift = shift;
        let mut step = [0.0; 4];
        for (amount, direction) in solution.iter().zip(&directions) {
            for (step, part) in step.iter_mut().zip(direction) {
                *step += amount * part;
            }
        }
        self.expected_decrease = 0.5 * solution.iter().zip(&slope).map(|(amount, slope)| amount * slope).sum::<f64>();
        step
    }

    /// How much of a step is feasible; sets the constraint that is reached.
    fn feasible_length(&mut self, step: &Vector) -> f64 {
        self.reached = 0;
        let mut length = 1.0;
        for constraint in CONSTRAINTS {
            let rate = slack_rate(constraint, step);
            if self.active.has(constraint) || rate >= 0.0 {
                continue;
            }
            let most = slack(constraint, &self.point).max(0.0) / -rate;
            if most < length {
                (length, self.reached) = (most, constraint);
            }
        }
        length
    }

    /// Puts the trial point exactly onto its constraints.
    fn land(&mut self) {
        let active = ActiveSet(self.active.0 | self.reached);
        let trial = &mut self.trial;
        trial[OMEGA] = if active.has(OMEGA_AT_MIN) { OMEGA_MIN } else { trial[OMEGA].max(OMEGA_MIN) };
        trial[ALPHA] = if active.has(ALPHA_ZERO) { 0.0 } else { trial[ALPHA].clamp(0.0, 1.0) };
        trial[BETA] = if active.has(BETA_ZERO) { 0.0 } else { trial[BETA].clamp(0.0, 1.0) };
        if active.has(UNIT_ROOT) || trial[ALPHA] + trial[BETA] > 1.0 {
            if active.has(BETA_ZERO) {
                trial[ALPHA] = 1.0;
            } else {
                trial[BETA] = 1.0 - trial[ALPHA];
            }
        }
    }
}

/// Solves `(matrix + shift scales) x = right` by a Cholesky factorization of the lower triangle. Unknowns of scale 0
/// are 0. `None` where the matrix is not positive definite.
fn solve(matrix: &[Vector; 4], right: &Vector, scales: &Vector, shift: f64) -> Option<Vector> {
    let mut factor = [[0.0; 4]; 4];
    let mut x = [0.0; 4];
    for row in 0..4 {
        if scales[row] == 0.0 {
            factor[row][row] = 1.0;
            continue;
        }
        for column in 0..=row {
            let product: f64 = (0..column).map(|k| factor[row][k] * factor[column][k]).sum();
            let rest = matrix[row][column] - product;
            if column < row {
                factor[row][column] = if scales[column] == 0.0 { 0.0 } else { rest / factor[column][column] };
            } else {
                let pivot = rest + shift * scales[row];
                if pivot.is_nan() || pivot <= 1e-12 * scales[row] {
                    return None;
                }
                factor[row][row] = pivot.sqrt();
            }
        }
        let product: f64 = (0..row).map(|k| factor[row][k] * x[k]).sum();
        x[row] = (right[row] - product) / factor[row][row];
    }
    for row in (0..4).rev() {
        let product: f64 = (row + 1..4).map(|k| factor[k][row] * x[k]).sum();
        x[row] = if scales[row] == 0.0 { 0.0 } else { (x[row] - product) / factor[row][row] };
    }
    Some(x)
}
