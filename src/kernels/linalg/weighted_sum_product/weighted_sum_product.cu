// out[i] = a x[i] + b y[i] + c z[i] w[i], with the roundings of the CPU code.
#include "elementwise.cuh"

extern "C" __global__ void ELEMENTWISE weighted_sum_product_f32(u64 n, float a, float b, float c, const float* x,
    const float* y, const float* z, const float* w, float* out) {
    const auto row = [=](float x, float y, float z, float w) { return fmaf(c * z, w, fmaf(a, x, b * y)); };
    elementwise<4>(n, row, outputs(out), operand(x), operand(y), operand(z), operand(w));
}
