// GARCH(1,1) by maximum likelihood, a thread for each series. See mod.rs for the model and its papers, and
// likelihood.rs, search.rs and fit.rs for the same computation on the CPU.
//
// A run: `volatility_scale` finds mean, deviation and backcast of each series, `volatility_transpose` writes the
// normalized returns with those of one time next to each other, so that the threads of a warp read whole lines, and
// `volatility_fit` searches. The passes over a series are bound by arithmetic in double precision: some 80 instructions
// for each return.
#include "cancel.cuh"
#include "elementwise.cuh"

constexpr u32 FULL_WARP = 0xffffffff;

// The codes of `Status` in mod.rs.
constexpr u32 CONVERGED = 0, NOT_CONVERGED = 1, CONSTANT = 2, NOT_FINITE = 3;

constexpr double OMEGA_MIN = 1e-8;
constexpr u32 MAX_EVALUATIONS = 200;
constexpr u32 BACKCAST_LEN = 75;
constexpr double BACKCAST_DECAY = 0.94;
// Returns of a pass between two reads of the cancel flag: well under a millisecond.
constexpr u32 RETURNS_PER_POLL = 1024;
// Returns that are read ahead.
constexpr u32 AHEAD = 4;

// ------------------------------------------------------------------------------------------------ normalization

static __device__ double warp_sum(double value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value += __shfl_xor_sync(FULL_WARP, value, delta);
    return value;
}

static __device__ double warp_max(double value) {
    for (u32 delta = 16; delta > 0; delta /= 2) value = fmax(value, __shfl_xor_sync(FULL_WARP, value, delta));
    return value;
}

// scales[0][s], [1][s] and [2][s]: center, deviation and normalized backcast of series s. The deviation is 0 where the
// returns are equal, and NaN where one is not finite. A warp for each series, so the order of the additions depends on
// n alone.
template <class T>
static __device__ void scale_series(u32 num_series, u64 n, u32 has_mean, const T* returns, double* scales) {
    const u32 lane = threadIdx.x % 32;
    const u32 series = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (series >= num_series) return;
    const T* const own = returns + series * n;
    double sum = 0.0, largest = 0.0;
    for (u64 t = lane; t < n; t += 32) {
        const double value = own[t];
        sum += value;
        largest = fmax(largest, fabs(value));
    }
    sum = warp_sum(sum);
    largest = warp_max(largest);
    const double center = has_mean ? sum / (double)n : 0.0;
    double squares = 0.0;
    for (u64 t = lane; t < n; t += 32) {
        const double deviation = (double)own[t] - center;
        squares += deviation * deviation;
    }
    double scale = sqrt(warp_sum(squares) / (double)n);
    const double inverse = 1.0 / scale;
    double weighted = 0.0, weights = 0.0;
    for (u32 t = lane; t < BACKCAST_LEN && t < n; t += 32) {
        const double weight = pow(BACKCAST_DECAY, (double)t);
        const double value = ((double)own[t] - center) * inverse;
        weighted += weight * value * value;
        weights += weight;
    }
    weighted = warp_sum(weighted);
    weights = warp_sum(weights);
    if (!isfinite(sum) || !isfinite(scale)) {
        scale = __longlong_as_double(0x7ff8000000000000);
    } else if (scale <= 1e-12 * largest || scale < 1.4916681462400413e-154) {
        scale = 0.0;
    }
    if (lane == 0) {
        scales[series] = center;
        scales[num_series + (u64)series] = scale;
        scales[2 * (u64)num_series + series] = weighted / weights;
    }
}

extern "C" __global__ void __launch_bounds__(256)
volatility_scale_f64(u32 num_series, u64 n, u32 has_mean, const double* returns, double* scales) {
    scale_series(num_series, n, has_mean, returns, scales);
}

extern "C" __global__ void __launch_bounds__(256)
volatility_scale_f32(u32 num_series, u64 n, u32 has_mean, const float* returns, double* scales) {
    scale_series(num_series, n, has_mean, returns, scales);
}

// out[t][s] = the normalized return of series s at time t, by tiles of 32 x 32 with 32 x 8 threads. Blocks stride over
// the tiles of the times.
template <class T>
static __device__ void transpose(u32 num_series, u64 n, const T* returns, const double* scales, double* out) {
    __shared__ double tile[32][33];
    const u32 x = threadIdx.x % 32, y = threadIdx.x / 32;
    const u32 first_series = blockIdx.x * 32;
    for (u64 first_time = (u64)blockIdx.y * 32; first_time < n; first_time += (u64)gridDim.y * 32) {
        __syncthreads();
        for (u32 row = y; row < 32; row += 8) {
            const u32 series = first_series + row;
            const u64 time = first_time + x;
            if (series < num_series && time < n) {
                const double inverse = 1.0 / scales[num_series + (u64)series];
                tile[row][x] = ((double)returns[series * n + time] - scales[series]) * inverse;
            }
        }
        __syncthreads();
        for (u32 row = y; row < 32; row += 8) {
            const u32 series = first_series + x;
            const u64 time = first_time + row;
            if (series < num_series && time < n) out[time * num_series + series] = tile[x][row];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
volatility_transpose_f64(u32 num_series, u64 n, const double* returns, const double* scales, double* out) {
    transpose(num_series, n, returns, scales, out);
}

extern "C" __global__ void __launch_bounds__(256)
volatility_transpose_f32(u32 num_series, u64 n, const float* returns, const double* scales, double* out) {
    transpose(num_series, n, returns, scales, out);
}

// ------------------------------------------------------------------------------------------------ likelihood

enum Parameter { OMEGA, ALPHA, BETA, MU };

struct Vector {
    double at[4];
};

// The negative log-likelihood without its constant, its gradient, and the lower triangle of its Hessian.
struct Evaluation {
    double value;
    double gradient[4];
    double hessian[4][4];
};

// Sum of logarithms, of products of 16: each factor is between 1e-8 and n, in units of the sample variance.
struct LogSum {
    double product, sum;

    __device__ void add(u64 time, double variance) {
        product *= variance;
        if (time % 16 == 15) flush();
    }

    __device__ void flush() {
        sum += log(product);
        product = 1.0;
    }
};

// The returns of one series.
struct Series {
    const double* first;
    u64 stride, n;
    double backcast;
    CancelSignal cancel;

    // Calls `step` with each time and return; false once the run is cancelled. The next returns are read while those
    // before are computed with: a read takes as long as several steps.
    template <class F> __device__ bool for_each(const F& step) const {
        double ahead[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) ahead[i] = at(i);
        for (u64 t = 0; t < n; t += AHEAD) {
            double now[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                now[i] = ahead[i];
                ahead[i] = at(t + AHEAD + i);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                if (t + i < n) step(t + i, now[i]);
            }
            if (t % RETURNS_PER_POLL == 0 && is_cancelled()) return false;
        }
        return true;
    }

    // Few blocks poll the host's flag, or all if there are few.
    __device__ bool is_cancelled() const {
        const bool polls = threadIdx.x % 32 == 0 && (gridDim.x <= 64 || blockIdx.x % 64 == 0);
        return cancel.is_seen() || (polls && cancel.poll_cancel());
    }

    // The return at this time, or the last one.
    __device__ double at(u64 time) const { return first[min(time, n - 1) * stride]; }

    __device__ bool value(const Vector& at, double* value) const {
        double variance = backcast, square = backcast, squares = 0.0;
        LogSum logarithms = {1.0, 0.0};
        const bool all = for_each([&](u64 t, double x) {
            variance = at.at[BETA] * variance + (at.at[ALPHA] * square + at.at[OMEGA]);
            const double residual = x - at.at[MU];
            square = residual * residual;
            squares += square / variance;
            logarithms.add(t, variance);
        });
        logarithms.flush();
        *value = 0.5 * (squares + logarithms.sum);
        return all;
    }

    // The variance of the last return and of the next one.
    __device__ bool last_variances(const Vector& at, double* last, double* next) const {
        double variance = backcast, square = backcast;
        const bool all = for_each([&](u64, double x) {
            variance = at.at[BETA] * variance + (at.at[ALPHA] * square + at.at[OMEGA]);
            const double residual = x - at.at[MU];
            square = residual * residual;
        });
        *last = variance;
        *next = at.at[BETA] * variance + (at.at[ALPHA] * square + at.at[OMEGA]);
        return all;
    }

    template <bool MEAN> __device__ bool evaluate(const Vector& at, Evaluation* out) const {
        constexpr int COUNT = MEAN ? 4 : 3;
        const double omega = at.at[OMEGA], alpha = at.at[ALPHA], beta = at.at[BETA], mu = at.at[MU];
        double variance = backcast, residual = 0.0, square = backcast, squares = 0.0;
        LogSum logarithms = {1.0, 0.0};
        // First derivatives of the variance, and the second ones that are not always 0.
        double by[4] = {};
        double omega_beta = 0.0, alpha_beta = 0.0, beta_beta = 0.0, mu_mu = 0.0, mu_alpha = 0.0, mu_beta = 0.0;
        double gradient[4] = {}, hessian[4][4] = {};
        // The first variance comes from the backcast, which does not depend on mu.
        double twice_alpha = 0.0;
        const bool all = for_each([&](u64 t, double x) {
            omega_beta = beta * omega_beta + by[OMEGA];
            alpha_beta = beta * alpha_beta + by[ALPHA];
            beta_beta = beta * beta_beta + (by[BETA] + by[BETA]);
            by[OMEGA] = beta * by[OMEGA] + 1.0;
            by[ALPHA] = beta * by[ALPHA] + square;
            by[BETA] = beta * by[BETA] + variance;
            if (MEAN) {
                const double slope = -2.0 * residual;
                mu_mu = beta * mu_mu + twice_alpha;
                mu_alpha = beta * mu_alpha + slope;
                mu_beta = beta * mu_beta + by[MU];
                by[MU] = beta * by[MU] + alpha * slope;
                twice_alpha = alpha + alpha;
            }
            variance = beta * variance + (alpha * square + omega);
            residual = x - mu;
            square = residual * residual;

            const double inverse = 1.0 / variance;
            const double ratio = square * inverse;
            const double half_inverse = 0.5 * inverse;
            // The first and the second derivative of (ln h + e^2 / h) / 2 by h.
            const double first = half_inverse * (1.0 - ratio);
            const double second = half_inverse * inverse * (ratio + ratio - 1.0);
            squares += ratio;
            logarithms.add(t, variance);
#pragma unroll
            for (int row = 0; row < COUNT; row++) {
                gradient[row] += first * by[row];
                const double weighted = second * by[row];
#pragma unroll
                for (int column = 0; column <= row; column++) hessian[row][column] += weighted * by[column];
            }
            hessian[BETA][OMEGA] += first * omega_beta;
            hessian[BETA][ALPHA] += first * alpha_beta;
            hessian[BETA][BETA] += first * beta_beta;
            if (MEAN) {
                // e / h depends on mu by e as well: these are the derivatives through it.
                const double scaled = residual * inverse, cross = scaled * inverse;
                gradient[MU] -= scaled;
                hessian[MU][OMEGA] += cross * by[OMEGA];
                hessian[MU][ALPHA] += first * mu_alpha + cross * by[ALPHA];
                hessian[MU][BETA] += first * mu_beta + cross * by[BETA];
                hessian[MU][MU] += first * mu_mu + 2.0 * cross * by[MU] + inverse;
            }
        });
        logarithms.flush();
        out->value = 0.5 * (squares + logarithms.sum);
#pragma unroll
        for (int row = 0; row < 4; row++) {
            out->gradient[row] = gradient[row];
#pragma unroll
            for (int column = 0; column <= row; column++) {
                out->hessian[row][column] = out->hessian[column][row] = hessian[row][column];
            }
        }
        return all;
    }
};

// ------------------------------------------------------------------------------------------------ search

// The inequality constraints, as bits of a set of those that hold with equality.
enum Constraint { OMEGA_AT_MIN = 1, ALPHA_ZERO = 2, BETA_ZERO = 4, UNIT_ROOT = 8 };

static __device__ double slack(u32 constraint, const Vector& point) {
    if (constraint == OMEGA_AT_MIN) return point.at[OMEGA] - OMEGA_MIN;
    if (constraint == ALPHA_ZERO) return point.at[ALPHA];
    if (constraint == BETA_ZERO) return point.at[BETA];
    return 1.0 - point.at[ALPHA] - point.at[BETA];
}

// How fast the slack grows along a direction.
static __device__ double slack_rate(u32 constraint, const Vector& direction) {
    if (constraint == OMEGA_AT_MIN) return direction.at[OMEGA];
    if (constraint == ALPHA_ZERO) return direction.at[ALPHA];
    if (constraint == BETA_ZERO) return direction.at[BETA];
    return -direction.at[ALPHA] - direction.at[BETA];
}

// The Lagrange multiplier of an active constraint.
static __device__ double multiplier(u32 constraint, u32 active, const double* gradient) {
    const double alpha = gradient[ALPHA], beta = gradient[BETA];
    const u32 plane = active & (ALPHA_ZERO | BETA_ZERO | UNIT_ROOT);
    if (constraint == OMEGA_AT_MIN) return gradient[OMEGA];
    if (constraint == UNIT_ROOT) return plane == UNIT_ROOT ? -0.5 * (alpha + beta) : plane & ALPHA_ZERO ? -beta : -alpha;
    if (constraint == ALPHA_ZERO) return plane & UNIT_ROOT ? alpha - beta : alpha;
    return plane & UNIT_ROOT ? beta - alpha : beta;
}

// Solves (matrix + shift scales) x = right by a Cholesky factorization of the lower triangle. Unknowns of scale 0 are
// 0. False where the matrix is not positive definite.
static __device__ bool solve(
    const double (&matrix)[4][4], const Vector& right, const Vector& scales, double shift, Vector* x) {
    double factor[4][4] = {};
#pragma unroll
    for (int row = 0; row < 4; row++) {
        x->at[row] = 0.0;
        if (scales.at[row] == 0.0) {
            factor[row][row] = 1.0;
            continue;
        }
#pragma unroll
        for (int column = 0; column <= row; column++) {
            double rest = matrix[row][column];
#pragma unroll
            for (int k = 0; k < column; k++) rest -= factor[row][k] * factor[column][k];
            if (column < row) {
                factor[row][column] = scales.at[column] == 0.0 ? 0.0 : rest / factor[column][column];
            } else {
                const double pivot = rest + shift * scales.at[row];
                // Not so for NaN either.
                if (!(pivot > 1e-12 * scales.at[row])) return false;
                factor[row][row] = sqrt(pivot);
            }
        }
        double rest = right.at[row];
#pragma unroll
        for (int k = 0; k < row; k++) rest -= factor[row][k] * x->at[k];
        x->at[row] = rest / factor[row][row];
    }
#pragma unroll
    for (int row = 3; row >= 0; row--) {
        double rest = x->at[row];
#pragma unroll
        for (int k = row + 1; k < 4; k++) rest -= factor[k][row] * x->at[k];
        x->at[row] = scales.at[row] == 0.0 ? 0.0 : rest / factor[row][row];
    }
    return true;
}

enum Outcome { RUNNING, DONE, GAVE_UP };

// As `Search` in search.rs.
struct Search {
    u32 has_mean;
    Vector point;
    Evaluation at_point;
    u32 active;
    Vector trial;
    u32 reached;
    double expected_decrease, shift, noise;
    u32 evaluations;
    Outcome outcome;

    __device__ void start(const Vector& from, u32 with_mean, u64 n) {
        has_mean = with_mean;
        point = trial = from;
        at_point.value = __longlong_as_double(0x7ff0000000000000);
        active = reached = evaluations = 0;
        expected_decrease = shift = 0.0;
        noise = 1e-14 * (double)n;
        outcome = RUNNING;
    }

    // Not inlined: between two passes over the series the search need not be in registers.
    __device__ __noinline__ void advance(const Evaluation& at_trial) {
        evaluations++;
        const double decrease = at_point.value - at_trial.value;
        // Not so for NaN either.
        if (decrease >= 1e-4 * expected_decrease - noise) {
            if (decrease > 0.5 * expected_decrease) shift *= 0.1;
            if (shift < 1e-7) shift = 0.0;
            point = trial;
            at_point = at_trial;
            active |= reached;
        } else {
            shift = fmax(8.0 * shift, 1e-3);
        }
        if (evaluations >= MAX_EVALUATIONS) {
            outcome = GAVE_UP;
        } else if (!propose()) {
            outcome = DONE;
        }
    }

    // Chooses the next trial point; false where no step improves the likelihood.
    __device__ bool propose() {
        for (int attempt = 0; attempt < 8; attempt++) {
            const Vector step = newton_step();
            const double length = feasible_length(step);
            if (expected_decrease > 1e-11 + noise) {
                for (int i = 0; i < 4; i++) trial.at[i] = point.at[i] + length * step.at[i];
                expected_decrease *= length * (2.0 - length);
                land();
                return true;
            }
            // Releases the active constraint away from which the likelihood grows fastest.
            u32 to_release = 0;
            double least = 0.0;
            for (u32 constraint = 1; constraint <= UNIT_ROOT; constraint *= 2) {
                if ((active & constraint) == 0) continue;
                const double of = multiplier(constraint, active, at_point.gradient);
                if (of < least) {
                    to_release = constraint;
                    least = of;
                }
            }
            if (to_release == 0) return false;
            active &= ~to_release;
        }
        return false;
    }

    // The step within the active constraints that minimizes the shifted quadratic model.
    __device__ Vector newton_step() {
        // Directions that keep the active constraints active; zero where there is none.
        double directions[4][4] = {};
        const u32 plane = active & (ALPHA_ZERO | BETA_ZERO | UNIT_ROOT);
        directions[0][OMEGA] = active & OMEGA_AT_MIN ? 0.0 : 1.0;
        directions[1][ALPHA] = plane == 0 || plane == BETA_ZERO || plane == UNIT_ROOT ? 1.0 : 0.0;
        directions[1][BETA] = plane == UNIT_ROOT ? -1.0 : 0.0;
        directions[2][BETA] = plane == 0 || plane == ALPHA_ZERO ? 1.0 : 0.0;
        directions[3][MU] = has_mean ? 1.0 : 0.0;

        double reduced[4][4];
        Vector slope, scales;
#pragma unroll
        for (int row = 0; row < 4; row++) {
            slope.at[row] = 0.0;
            bool is_free = false;
            double image[4] = {};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                slope.at[row] -= directions[row][i] * at_point.gradient[i];
                is_free = is_free || directions[row][i] != 0.0;
#pragma unroll
                for (int k = 0; k < 4; k++) image[i] += at_point.hessian[i][k] * directions[row][k];
            }
#pragma unroll
            for (int column = 0; column <= row; column++) {
                reduced[row][column] = 0.0;
#pragma unroll
                for (int i = 0; i < 4; i++) reduced[row][column] += directions[column][i] * image[i];
            }
            scales.at[row] = is_free ? fmax(fabs(reduced[row][row]), 1e-6) : 0.0;
        }
        Vector solution;
        while (!solve(reduced, slope, scales, shift, &solution)) shift = fmax(4.0 * shift, 1e-3);
        Vector step = {};
        expected_decrease = 0.0;
#pragma unroll
        for (int row = 0; row < 4; row++) {
            expected_decrease += 0.5 * solution.at[row] * slope.at[row];
#pragma unroll
            for (int i = 0; i < 4; i++) step.at[i] += solution.at[row] * directions[row][i];
        }
        return step;
    }

    // How much of a step is feasible; sets the constraint that is reached.
    __device__ double feasible_length(const Vector& step) {
        double length = 1.0;
        reached = 0;
        for (u32 constraint = 1; constraint <= UNIT_ROOT; constraint *= 2) {
            const double rate = slack_rate(constraint, step);
            if ((active & constraint) != 0 || rate >= 0.0) continue;
            const double most = fmax(slack(constraint, point), 0.0) / -rate;
            if (most < length) {
                length = most;
                reached = constraint;
            }
        }
        return length;
    }

    // Puts the trial point exactly onto its constraints.
    __device__ void land() {
        const u32 at = active | reached;
        trial.at[OMEGA] = at & OMEGA_AT_MIN ? OMEGA_MIN : fmax(trial.at[OMEGA], OMEGA_MIN);
        trial.at[ALPHA] = at & ALPHA_ZERO ? 0.0 : fmin(fmax(trial.at[ALPHA], 0.0), 1.0);
        trial.at[BETA] = at & BETA_ZERO ? 0.0 : fmin(fmax(trial.at[BETA], 0.0), 1.0);
        if (at & UNIT_ROOT || trial.at[ALPHA] + trial.at[BETA] > 1.0) {
            if (at & BETA_ZERO) {
                trial.at[ALPHA] = 1.0;
            } else {
                trial.at[BETA] = 1.0 - trial.at[ALPHA];
            }
        }
    }
};

// Starts are the best point of each row: a persistence, and values of alpha. As STARTS in fit.rs.
constexpr int STARTS = 5;
static __constant__ const double PERSISTENCE[STARTS] = {0.1, 0.5, 0.85, 0.98, 0.98};
static __constant__ const double ALPHAS[STARTS][3] = {
    {0.01, 0.05, 0.09}, {0.01, 0.1, 0.3}, {0.02, 0.08, 0.2}, {0.01, 0.0, 0.0}, {0.05, 0.15, 0.0}};
static __constant__ const int ALPHA_COUNT[STARTS] = {3, 3, 3, 1, 2};

static __device__ Vector start_of(int row, int alpha) {
    return {{1.0 - PERSISTENCE[row], ALPHAS[row][alpha], PERSISTENCE[row] - ALPHAS[row][alpha], 0.0}};
}

// The fits of all series: mu, omega, alpha, beta, log-likelihood, last and next variance as rows of `fits`, evaluations
// and status as rows of `counts`. Once the run is cancelled they are left unwritten.
struct Fits {
    u32 num_series;
    double* fits;
    u32* counts;

    __device__ void write(u32 series, const double (&values)[7], u32 evaluations, u32 status) const {
        for (int row = 0; row < 7; row++) fits[row * (u64)num_series + series] = values[row];
        counts[series] = evaluations;
        counts[num_series + (u64)series] = status;
    }
};

template <bool MEAN>
static __device__ void fit(
    u32 num_series, u64 n, const double* returns, const double* scales, Fits out, CancelSignal cancel) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= num_series) return;
    const double center = scales[index], scale = scales[num_series + (u64)index];
    if (!(scale > 0.0)) {
        const double nan = __longlong_as_double(0x7ff8000000000000);
        out.write(index, {nan, nan, nan, nan, nan, nan, nan}, 0, scale == 0.0 ? CONSTANT : NOT_FINITE);
        return;
    }
    const Series series = {returns + index, num_series, n, scales[2 * (u64)num_series + index], cancel};

    int starts[STARTS];
    for (int row = 0; row < STARTS; row++) {
        double least = 0.0;
        for (int alpha = 0; alpha < ALPHA_COUNT[row]; alpha++) {
            double value;
            if (!series.value(start_of(row, alpha), &value)) return;
            if (alpha == 0 || value < least) {
                least = value;
                starts[row] = alpha;
            }
        }
    }

    // One loop for all searches of a thread, so that the threads of a warp evaluate together wherever each is.
    Search search;
    search.start(start_of(0, starts[0]), MEAN, n);
    Vector best = {};
    double least = __longlong_as_double(0x7ff0000000000000);
    u32 evaluations = 0, status = NOT_CONVERGED;
    for (int row = 0; row < STARTS;) {
        Evaluation evaluation;
        if (!series.evaluate<MEAN>(search.trial, &evaluation)) return;
        search.advance(evaluation);
        evaluations++;
        if (search.outcome == RUNNING) continue;
        if (search.at_point.value < least) {
            least = search.at_point.value;
            best = search.point;
            status = search.outcome == DONE ? CONVERGED : NOT_CONVERGED;
        }
        row++;
        if (row < STARTS) search.start(start_of(row, starts[row]), MEAN, n);
    }

    double last, next;
    if (!series.last_variances(best, &last, &next)) return;
    const double unit = scale * scale;
    const double constant = 0.91893853320467274178 + log(scale);
    out.write(
        index,
        {center + scale * best.at[MU], unit * best.at[OMEGA], best.at[ALPHA], best.at[BETA],
         -least - (double)n * constant, unit * last, unit * next},
        evaluations, status);
}

extern "C" __global__ void __launch_bounds__(64, 6) volatility_fit_constant_mean(
    u32 num_series, u64 n, const double* returns, const double* scales, double* fits, u32* counts,
    const volatile u32* flag, u32* cancelled) {
    fit<true>(num_series, n, returns, scales, {num_series, fits, counts}, {flag, cancelled});
}

extern "C" __global__ void __launch_bounds__(64, 6) volatility_fit_zero_mean(
    u32 num_series, u64 n, const double* returns, const double* scales, double* fits, u32* counts,
    const volatile u32* flag, u32* cancelled) {
    fit<false>(num_series, n, returns, scales, {num_series, fits, counts}, {flag, cancelled});
}
