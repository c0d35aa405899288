// saxpy: out[i] = a * x[i] + y[i], 0 <= i < n, in f32.
//
// Entry
//   saxpy_f32(u64 n, f32 a, const f32* x, const f32* y, f32* out)
//     x, y, out: n elements each. `out` may be `y` itself; any other overlap is not allowed.
// Launch
//   256 threads a block; blocks = clamp(ceil(n / 1024), 1, 2^20) gives each thread one 16-byte
//   access an array. Any grid is right: the loop strides over what the grid does not cover.
// Rounding
//   One fused multiply-add an element, so the result is bit for bit that of `f32::mul_add`.
//
// Source: Lawson, Hanson, Kincaid, Krogh, "Basic Linear Algebra Subprograms for Fortran Usage",
// ACM TOMS 5(3), 1979.

typedef unsigned long long u64;

// 16-byte accesses need every array on a 16-byte boundary.
static __device__ bool vectors_fit(const void* x, const void* y, const void* out) {
    return (((u64)x | (u64)y | (u64)out) & 15) == 0;
}

extern "C" __global__ void __launch_bounds__(256)
saxpy_f32(u64 n, float a, const float* x, const float* y, float* out) {
    const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    const u64 threads = (u64)gridDim.x * blockDim.x;
    u64 done = 0;
    if (vectors_fit(x, y, out)) {
        const u64 vectors = n / 4;
        for (u64 i = thread; i < vectors; i += threads) {
            // Each element is used once: keep it out of the way of whatever the cache holds.
            const float4 p = __ldcs((const float4*)x + i);
            const float4 q = __ldcs((const float4*)y + i);
            float4 r;
            r.x = fmaf(a, p.x, q.x);
            r.y = fmaf(a, p.y, q.y);
            r.z = fmaf(a, p.z, q.z);
            r.w = fmaf(a, p.w, q.w);
            __stcs((float4*)out + i, r);
        }
        done = vectors * 4;
    }
    for (u64 i = done + thread; i < n; i += threads) {
        out[i] = fmaf(a, x[i], y[i]);
    }
}
