// European options: Black-Scholes-Merton price, delta, gamma, vega, theta and rho. mod.rs has the formulas.
//
// The caller checks the domains; NaN gives NaN. Where v = sigma sqrt(t) is 0, or under the smallest normal number, whose
// reciprocal might overflow, the formulas hold with phi = 0 and d1 = d2 = the limit: +infinity for A > B, -infinity for
// A < B, 0 for A = B, where A and B are the discounted spot and strike.
//
// Rounding: the put has its own tails N(-d) and does not come from parity. ln(S / K) is ln(u) + (S - u K) / S for u =
// S / K as rounded: the remainder is exact by fused multiply-add, so the logarithm keeps its relative accuracy near S =
// K, where v may be as small. That also forgives an approximate u, and f32 takes its quotients and roots from the
// hardware's 1 to 2 ulp units; N(d1) and N(d2) move the price together and cancel to first order in d, so its f32 error
// stays at a few 1e-7 of max(S, K). In f64, which is bound by arithmetic and not by memory, both tails come from one
// exponential, as A phi(d1) = B phi(d2). For S / K past 1e300, where A phi(d1) underflows before B phi(d2) does, rho is
// that of d2 at infinity.
#include "elementwise.cuh"

static __device__ float natural_log(float x) { return logf(x); }
static __device__ double natural_log(double x) { return log(x); }
static __device__ float exponential(float x) { return expf(x); }
static __device__ double exponential(double x) { return exp(x); }
static __device__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ double fused(double a, double b, double c) { return fma(a, b, c); }
static __device__ float smallest_normal(float) { return 1.17549435e-38f; }
static __device__ double smallest_normal(double) { return 2.2250738585072014e-308; }
static __device__ double square_root(double x) { return sqrt(x); }
static __device__ float square_root(float x) {
    float out;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
static __device__ float reciprocal(float x) {
    float out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
// Within an ulp or so for normal x, and without the branches of a full division.
static __device__ double reciprocal(double x) {
    double out;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(out) : "d"(x));
    out = fma(fma(-x, out, 1.0), out, out);
    return fma(fma(-x, out, 1.0), out, out);
}

// (x + 5) exp(x^2 / 2) N(-x) in powers of (x - 5) / (x + 5): TAIL of src/kernels/authoring/elementary.rs. In constant
// memory, from where an instruction takes its operand; a literal is moved into two registers first.
static __constant__ double TAIL[] = {
    0.769193049750063, -0.6653825028900684, 0.49530561596999373,
    -0.31353315667043613, 0.16502036616910737, -0.06911863872545303,
    0.020795066827479357, -0.002993376574719397, -0.0007978696711036696,
    0.0005448979466789302, -5.9374254572626344e-05, -4.97588940707279e-05,
    1.6676472037663173e-05, 3.972040494146394e-06, -2.759874941021964e-06,
    -3.2349752237852993e-07, 4.218019214509211e-07, 2.982859361326789e-08,
    -5.814075965453212e-08, -2.3627806826406506e-09, 5.151491485332322e-09,
};

// a N(x) and b N(y), given bell = a exp(-x^2 / 2) = b exp(-y^2 / 2), where N is the normal distribution function.
static __device__ void normal_shares(float x, float y, float a, float b, float, float& a_share, float& b_share) {
    a_share = a * 0.5f * erfcf(x * -0.70710678118654752440f);
    b_share = b * 0.5f * erfcf(y * -0.70710678118654752440f);
}
static __device__ void normal_shares(
    double x, double y, double a, double b, double bell, double& a_share, double& b_share) {
    // Beyond 64 the bell is 0, and the bound keeps what follows a number where x is infinite.
    const double per_x = reciprocal(fmin(fabs(x), 64.0) + 5.0);
    const double per_y = reciprocal(fmin(fabs(y), 64.0) + 5.0);
    const double at_x = fma(-10.0, per_x, 1.0);
    const double at_y = fma(-10.0, per_y, 1.0);
    constexpr int N = sizeof(TAIL) / sizeof(TAIL[0]);
    double tail_x = TAIL[N - 1], tail_y = TAIL[N - 1];
#pragma unroll
    for (int i = N - 2; i >= 0; i--) {
        tail_x = fma(tail_x, at_x, TAIL[i]);
        tail_y = fma(tail_y, at_y, TAIL[i]);
    }
    tail_x *= bell * per_x;
    tail_y *= bell * per_y;
    a_share = x > 0.0 ? a - tail_x : tail_x;
    b_share = y > 0.0 ? b - tail_y : tail_y;
}

template <class T> struct BlackScholes {
    __device__ Row<T, 6> operator()(T spot, T strike, T rate, T volatility, T time, T dividend, u8 kind) const {
        const T w = kind == 0 ? T(1) : T(-1);
        const T root_time = square_root(time);
        const T v = volatility * root_time;
        const T dividend_discount = exponential(-dividend * time);
        const T a = spot * dividend_discount;
        const T b = strike * exponential(-rate * time);

        // phi is exp(-d1^2 / 2) as the sensitivities have it, tail as the tails do.
        T d1, d2, phi, tail, per_v;
        const T per_spot = reciprocal(spot);
        if (v < smallest_normal(v)) {
            const T infinity = T(1) / T(0);
            d1 = d2 = a > b ? infinity : a < b ? -infinity : a - b;
            phi = per_v = T(0);
            // There are tails where A = B alone; NaN stays NaN.
            tail = a > b || a < b ? T(0) : T(1) + d1;
        } else {
            per_v = reciprocal(v);
            const T u = spot * reciprocal(strike);
            const T log_moneyness = fused(fused(-u, strike, spot), per_spot, natural_log(u));
            d1 = fused(fused(rate - dividend, time, log_moneyness), per_v, T(0.5) * v);
            d2 = d1 - v;
            phi = tail = exponential(T(-0.5) * d1 * d1);
        }
        T gained, paid;
        normal_shares(w * d1, w * d2, a, b, a * tail, gained, paid);
        phi *= T(0.39894228040143267794);
        const T a_phi = a * phi;
        // sigma / (2 sqrt(t)) = sigma^2 / (2 v), which saves a division.
        const T decay = T(0.5) * a_phi * (volatility * volatility * per_v);
        const T carry = w * (dividend * gained - rate * paid);
        return {{w * (gained - paid), w * gained * per_spot, dividend_discount * phi * per_spot * per_v,
            a_phi * root_time, carry - decay, w * time * paid}};
    }
};

// At least RESIDENT blocks a multiprocessor, to which ptxas fits the registers.
#define BLACK_SCHOLES(NAME, T, W, RESIDENT)                                                                        \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT) NAME(u64 n, const T* spot, u32 spot_stride,        \
        const T* strike, u32 strike_stride, const T* rate, u32 rate_stride, const T* volatility,                   \
        u32 volatility_stride, const T* time, u32 time_stride, const T* dividend, u32 dividend_stride,             \
        const u8* kind, u32 kind_stride, T* price, T* delta, T* gamma, T* vega, T* theta, T* rho) {                \
        elementwise<W>(n, BlackScholes<T>(), outputs(price, delta, gamma, vega, theta, rho),                       \
            operand(spot, spot_stride), operand(strike, strike_stride), operand(rate, rate_stride),                \
            operand(volatility, volatility_stride), operand(time, time_stride),                                    \
            operand(dividend, dividend_stride), operand(kind, kind_stride));                                       \
    }

BLACK_SCHOLES(black_scholes_f32, float, 4, 4)
BLACK_SCHOLES(black_scholes_f64, double, 2, 3)
