// European options: Black-Scholes-Merton price and five Greeks, elementwise.
//
// Entries (T is f32 or f64)
//   black_scholes_f32, black_scholes_f64(
//     u64 n,
//     const T* spot,       u32 spot_stride,        S > 0
//     const T* strike,     u32 strike_stride,      K > 0
//     const T* rate,       u32 rate_stride,        r, continuously compounded, a year
//     const T* volatility, u32 volatility_stride,  sigma >= 0, a square root of a year
//     const T* time,       u32 time_stride,        t >= 0, years to expiry
//     const T* dividend,   u32 dividend_stride,    q, continuous dividend yield, a year
//     const u8* kind,      u32 kind_stride,        0 call, 1 put
//     T* price, T* delta, T* gamma, T* vega, T* theta, T* rho)
//   An input has n elements and stride 1, or one element and stride 0: it then holds for all n.
//   Each output has n elements; delta and gamma are per unit of spot, vega per unit of volatility,
//   theta per year of calendar time (minus the derivative by t), rho per unit of rate.
//   The caller checks domains: nothing is refused here, and NaN gives NaN.
// Launch
//   256 threads a block, blocks = clamp(ceil(n / (256 * W)), 1, 2^20), W = 4 for f32 and 2 for
//   f64: one 16-byte access an array and thread. Any grid is right.
//
// With A = S exp(-q t), B = K exp(-r t), v = sigma sqrt(t), w = +1 for a call and -1 for a put:
//   d1 = (ln(S / K) + (r - q) t) / v + v / 2       d2 = d1 - v
//   price = w (A N(w d1) - B N(w d2))              delta = w exp(-q t) N(w d1)
//   gamma = exp(-q t) phi(d1) / (S v)              vega  = A phi(d1) sqrt(t)
//   theta = -A phi(d1) sigma / (2 sqrt(t)) + w (q A N(w d1) - r B N(w d2))
//   rho   = w t B N(w d2)
// Where v = 0 (or under the smallest normal number of T, whose reciprocal might overflow) the same
// lines hold with phi = 0 and d1 = d2 = the limit: +infinity for A > B, -infinity for A < B, 0 for
// A = B. So price is max(w (A - B), 0), delta is w exp(-q t) in the
// money, 0 out of it and half of it at A = B, gamma and vega are 0, theta and rho those of the
// forward.
//
// Rounding: the put has its own tails N(-d) and is not had from parity. ln(S / K) is taken as
// ln(u) + (S - u K) / S for u = S / K as rounded: the remainder is exact by fused multiply-add, so
// the logarithm keeps its relative accuracy near S = K, where v may be as small. That also forgives
// an approximate u, and f32 takes its quotients and roots from the hardware's 1 to 2 ulp units;
// N(d1) and N(d2) move price together and cancel to first order in d, so its f32 error stays at a
// few 1e-7 of max(S, K). In f64, which waits for its instructions and not for memory, both tails
// come from one exponential, as A phi(d1) = B phi(d2), and not from two error functions that would
// each compute it anew. For S / K past 1e300, where A phi(d1) underflows before B phi(d2) does, rho
// is that of d2 at infinity.
//
// Source: Black, Scholes, "The Pricing of Options and Corporate Liabilities", JPE 81(3), 1973;
// Merton, "Theory of Rational Option Pricing", Bell J. Econ. 4(1), 1973.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

static __device__ float natural_log(float x) { return logf(x); }
static __device__ double natural_log(double x) { return log(x); }
static __device__ float exponential(float x) { return expf(x); }
static __device__ double exponential(double x) { return exp(x); }
static __device__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ double fused(double a, double b, double c) { return fma(a, b, c); }
static __device__ float complementary_error(float x) { return erfcf(x); }
// Within an ulp or so for normal x, and without the branches of a full division.
static __device__ double reciprocal(double x) {
    double out;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(out) : "d"(x));
    out = fma(fma(-x, out, 1.0), out, out);
    return fma(fma(-x, out, 1.0), out, out);
}
static __device__ double square_root(double x) { return sqrt(x); }
static __device__ float reciprocal(float x) {
    float out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
static __device__ float square_root(float x) {
    float out;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
static __device__ float smallest_normal(float) { return 1.17549435e-38f; }
static __device__ double smallest_normal(double) { return 2.2250738585072014e-308; }

// (x + 5) exp(x^2 / 2) N(-x) in powers of (x - 5) / (x + 5), as src/kernels/risk/elementary.rs has
// it, which says where it is from. In constant memory, from where an instruction takes its operand;
// a literal is moved into two registers first.
static __constant__ double TAIL[] = {
    0.769193049750063, -0.6653825028900684, 0.49530561596999373,
    -0.31353315667043613, 0.16502036616910737, -0.06911863872545303,
    0.020795066827479357, -0.002993376574719397, -0.0007978696711036696,
    0.0005448979466789302, -5.9374254572626344e-05, -4.97588940707279e-05,
    1.6676472037663173e-05, 3.972040494146394e-06, -2.759874941021964e-06,
    -3.2349752237852993e-07, 4.218019214509211e-07, 2.982859361326789e-08,
    -5.814075965453212e-08, -2.3627806826406506e-09, 5.151491485332322e-09,
};

template <class T> struct Option {
    T spot, strike, rate, volatility, time, dividend;
    u8 kind;
};

template <class T> struct Valuation {
    T price, delta, gamma, vega, theta, rho;
};

// a N(x) and b N(y), where bell is a exp(-x^2 / 2) = b exp(-y^2 / 2) and N the normal
// distribution function.
static __device__ void shares(float x, float y, float a, float b, float, float& a_share, float& b_share) {
    a_share = a * 0.5f * complementary_error(x * -0.70710678118654752440f);
    b_share = b * 0.5f * complementary_error(y * -0.70710678118654752440f);
}
static __device__ void shares(
    double x, double y, double a, double b, double bell, double& a_share, double& b_share) {
    // Far out the bell is 0 already, and the bound keeps what follows a number at infinity.
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

template <class T> static __device__ Valuation<T> value(const Option<T>& o) {
    const T w = o.kind == 0 ? T(1) : T(-1);
    const T root_time = square_root(o.time);
    const T v = o.volatility * root_time;
    const T dividend_discount = exponential(-o.dividend * o.time);
    const T a = o.spot * dividend_discount;
    const T b = o.strike * exponential(-o.rate * o.time);

    // exp(-d1^2 / 2), as the Greeks have it and as the tails do.
    T d1, d2, hump, tail, per_v;
    const T per_spot = reciprocal(o.spot);
    if (v < smallest_normal(v)) {
        const T infinity = T(1) / T(0);
        d1 = d2 = a > b ? infinity : a < b ? -infinity : a - b;
        hump = per_v = T(0);
        // There are tails where A = B alone; NaN stays what it is.
        tail = a > b || a < b ? T(0) : T(1) + d1;
    } else {
        per_v = reciprocal(v);
        const T u = o.spot * reciprocal(o.strike);
        const T log_moneyness = fused(fused(-u, o.strike, o.spot), per_spot, natural_log(u));
        d1 = fused(fused(o.rate - o.dividend, o.time, log_moneyness), per_v, T(0.5) * v);
        d2 = d1 - v;
        hump = tail = exponential(T(-0.5) * d1 * d1);
    }
    T gained, paid;
    shares(w * d1, w * d2, a, b, a * tail, gained, paid);
    const T phi = T(0.39894228040143267794) * hump;
    const T a_phi = a * phi;

    Valuation<T> out;
    out.price = w * (gained - paid);
    out.delta = w * gained * per_spot;
    out.gamma = dividend_discount * phi * per_spot * per_v;
    out.vega = a_phi * root_time;
    // sigma / (2 sqrt(t)) = sigma^2 / (2 v), which spares a division.
    const T decay = T(0.5) * a_phi * (o.volatility * o.volatility * per_v);
    out.theta = w * (o.dividend * gained - o.rate * paid) - decay;
    out.rho = w * o.time * paid;
    return out;
}

// W elements that are read or written as one.
template <class T, int W> struct alignas(sizeof(T) * W) Pack {
    T at[W];
};

template <class T, int W> static __device__ Pack<T, W> read(const T* from, u32 stride, u64 pack) {
    Pack<T, W> out;
    if (W == 1) {
        out.at[0] = from[stride * pack];
    } else if (stride != 0) {
        out = ((const Pack<T, W>*)from)[pack];
    } else {
        const T value = *from;
#pragma unroll
        for (int i = 0; i < W; i++) out.at[i] = value;
    }
    return out;
}

template <class T> struct Input {
    const T* at;
    u32 stride;
};

template <class T> struct Inputs {
    Input<T> spot, strike, rate, volatility, time, dividend;
    Input<u8> kind;
};

template <class T> struct Outputs {
    T *price, *delta, *gamma, *vega, *theta, *rho;
};

// Values the W options of number `pack`.
template <class T, int W>
static __device__ void value_pack(const Inputs<T>& in, const Outputs<T>& out, u64 pack) {
    const Pack<T, W> spot = read<T, W>(in.spot.at, in.spot.stride, pack);
    const Pack<T, W> strike = read<T, W>(in.strike.at, in.strike.stride, pack);
    const Pack<T, W> rate = read<T, W>(in.rate.at, in.rate.stride, pack);
    const Pack<T, W> volatility = read<T, W>(in.volatility.at, in.volatility.stride, pack);
    const Pack<T, W> time = read<T, W>(in.time.at, in.time.stride, pack);
    const Pack<T, W> dividend = read<T, W>(in.dividend.at, in.dividend.stride, pack);
    const Pack<u8, W> kind = read<u8, W>(in.kind.at, in.kind.stride, pack);
    Pack<T, W> price, delta, gamma, vega, theta, rho;
#pragma unroll
    for (int i = 0; i < W; i++) {
        const Valuation<T> one = value(Option<T>{spot.at[i], strike.at[i], rate.at[i],
            volatility.at[i], time.at[i], dividend.at[i], kind.at[i]});
        price.at[i] = one.price;
        delta.at[i] = one.delta;
        gamma.at[i] = one.gamma;
        vega.at[i] = one.vega;
        theta.at[i] = one.theta;
        rho.at[i] = one.rho;
    }
    ((Pack<T, W>*)out.price)[pack] = price;
    ((Pack<T, W>*)out.delta)[pack] = delta;
    ((Pack<T, W>*)out.gamma)[pack] = gamma;
    ((Pack<T, W>*)out.vega)[pack] = vega;
    ((Pack<T, W>*)out.theta)[pack] = theta;
    ((Pack<T, W>*)out.rho)[pack] = rho;
}

template <class T, int W> static __device__ bool fits(const T* at, u32 stride) {
    return stride == 0 || ((u64)at & (sizeof(T) * W - 1)) == 0;
}

// Whether every array may be read and written W elements at a time.
template <class T, int W>
static __device__ bool packs_fit(const Inputs<T>& in, const Outputs<T>& out) {
    if (!fits<T, W>(in.spot.at, in.spot.stride)) return false;
    if (!fits<T, W>(in.strike.at, in.strike.stride)) return false;
    if (!fits<T, W>(in.rate.at, in.rate.stride)) return false;
    if (!fits<T, W>(in.volatility.at, in.volatility.stride)) return false;
    if (!fits<T, W>(in.time.at, in.time.stride)) return false;
    if (!fits<T, W>(in.dividend.at, in.dividend.stride)) return false;
    if (!fits<u8, W>(in.kind.at, in.kind.stride)) return false;
    return fits<T, W>(out.price, 1) && fits<T, W>(out.delta, 1) && fits<T, W>(out.gamma, 1)
        && fits<T, W>(out.vega, 1) && fits<T, W>(out.theta, 1) && fits<T, W>(out.rho, 1);
}

template <class T, int W>
static __device__ void value_all(u64 n, const Inputs<T>& in, const Outputs<T>& out) {
    const u64 threads = (u64)gridDim.x * blockDim.x;
    const bool packed = packs_fit<T, W>(in, out);
    // One loop for whole packs and the rest: with a second one, NVRTC 12.2 orders its address
    // arithmetic differently from run to run, and the PTX would not be reproducible.
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i * W < n; i += threads) {
        if (packed && (i + 1) * W <= n) {
            value_pack<T, W>(in, out, i);
        } else {
            const u64 end = min((i + 1) * W, n);
            for (u64 k = i * W; k < end; k++) value_pack<T, 1>(in, out, k);
        }
    }
}

// At least RESIDENT blocks a multiprocessor: what ptxas fits its registers to.
#define BLACK_SCHOLES(NAME, T, W, RESIDENT)                                                    \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT) NAME(u64 n,                    \
        const T* spot, u32 spot_stride, const T* strike, u32 strike_stride,                    \
        const T* rate, u32 rate_stride, const T* volatility, u32 volatility_stride,            \
        const T* time, u32 time_stride, const T* dividend, u32 dividend_stride,                \
        const u8* kind, u32 kind_stride,                                                       \
        T* price, T* delta, T* gamma, T* vega, T* theta, T* rho) {                             \
        const Inputs<T> in = {{spot, spot_stride}, {strike, strike_stride}, {rate, rate_stride}, \
            {volatility, volatility_stride}, {time, time_stride}, {dividend, dividend_stride}, \
            {kind, kind_stride}};                                                              \
        const Outputs<T> out = {price, delta, gamma, vega, theta, rho};                        \
        value_all<T, W>(n, in, out);                                                           \
    }

BLACK_SCHOLES(black_scholes_f32, float, 4, 4)
BLACK_SCHOLES(black_scholes_f64, double, 2, 3)
