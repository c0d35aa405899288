// The sum of x[i] y[i] in f64, where each product is exact.
#include "elementwise.cuh"
#include "reduce.cuh"

struct Dot {
    double sum;
    __device__ static Dot identity() { return {0.0}; }
    __device__ void add(float x, float y) { sum = fma((double)x, (double)y, sum); }
    __device__ void merge(const Dot& other) { sum += other.sum; }
};

extern "C" __global__ void REDUCE
dot_f32(u32 segments, const u64* offsets, double* partials, const float* x, const float* y) {
    reduce<Dot, 4>(segments, offsets, partials, x, y);
}

extern "C" __global__ void REDUCE
dot_f32_merge(u32 segments, const u64* offsets, u32 stride, const double* partials, double* out) {
    merge_partials<Dot>(segments, offsets, stride, partials, out);
}
