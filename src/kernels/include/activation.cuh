// Activation functions of neural networks, by the number that the host passes: see `Activation` in
// kernels/graph/neural_network/activation.rs. NaN stays NaN.
#pragma once

typedef unsigned int u32;

constexpr u32 RELU = 1, LEAKY_RELU = 2, SIGMOID = 3, TANH = 4, ELU = 5; // others return the number itself

// The less usual ones, which are not inlined: a thread may call it for each of many numbers in registers.
static __device__ __noinline__ float activate_by_call(u32 activation, float negative_slope, float x) {
    switch (activation) {
        case LEAKY_RELU: return x < 0.0f ? negative_slope * x : x;
        case SIGMOID: return 1.0f / (1.0f + expf(-x));
        case TANH: return tanhf(x);
        case ELU: return x < 0.0f ? expm1f(x) : x;
        default: return x;
    }
}

static __device__ float activate(u32 activation, float negative_slope, float x) {
    if (activation > RELU) return activate_by_call(activation, negative_slope, x);
    return activation == RELU && x < 0.0f ? 0.0f : x;
}
