// Count, mean, and sums of powers of the deviations from it: the updates of Chan, Golub and LeVeque (1979) and of
// Terriberry (2007), for one row and for two states.
#include "elementwise.cuh"
#include "reduce.cuh"

struct Moments {
    double count, mean, m2, m3, m4;

    __device__ static Moments identity() { return {0.0, 0.0, 0.0, 0.0, 0.0}; }

    __device__ void add(double x) {
        const double before = count;
        count += 1.0;
        const double delta = x - mean;
        const double step = delta / count;
        const double square = step * step;
        const double term = delta * step * before;
        mean += step;
        m4 += term * square * (count * count - 3.0 * count + 3.0) + 6.0 * square * m2 - 4.0 * step * m3;
        m3 += term * step * (count - 2.0) - 3.0 * step * m2;
        m2 += term;
    }

    __device__ void merge(const Moments& other) {
        if (other.count == 0.0) return;
        if (count == 0.0) {
            *this = other;
            return;
        }
        const double a = count, b = other.count, n = a + b;
        const double delta = other.mean - mean;
        const double step = delta / n;
        const double square = step * step;
        const double term = delta * step * a * b;
        m4 += other.m4 + term * square * (a * a - a * b + b * b)
            + 6.0 * square * (a * a * other.m2 + b * b * m2) + 4.0 * step * (a * other.m3 - b * m3);
        m3 += other.m3 + term * step * (a - b) + 3.0 * step * (a * other.m2 - b * m2);
        m2 += other.m2 + term;
        mean += step * b;
        count = n;
    }
};

extern "C" __global__ void REDUCE
moments_f64(u32 segments, const u64* offsets, double* partials, const double* x) {
    reduce<Moments, 2>(segments, offsets, partials, x);
}

extern "C" __global__ void REDUCE
moments_f64_merge(u32 segments, const u64* offsets, u32 stride, const double* partials, double* out) {
    merge_partials<Moments>(segments, offsets, stride, partials, out);
}
