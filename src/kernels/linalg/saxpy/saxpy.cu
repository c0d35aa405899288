// out[i] = a x[i] + y[i], one fused multiply-add a row: bit for bit `f32::mul_add`.
#include "elementwise.cuh"

extern "C" __global__ void ELEMENTWISE saxpy_f32(u64 n, float a, const float* x, const float* y, float* out) {
    elementwise<4>(n, [=](float x, float y) { return fmaf(a, x, y); }, outputs(out), operand(x), operand(y));
}
