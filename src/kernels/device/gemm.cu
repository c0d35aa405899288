// Dense matrix products. gemm.cuh has the algorithm.

#include "gemm.cuh"

#define GEMM(COLUMNS, BLOCKS)                                                                                               \
    extern "C" __global__ void __launch_bounds__(GemmTiles<COLUMNS>::THREADS, BLOCKS)                                          \
        gemm_##COLUMNS(u32 m, u32 n, u32 k, u32 a_stride, u32 c_stride, const float* a, const float* b,                \
            const float* bias, float* c, u32 activation, float negative_slope, const volatile u32* flag,               \
            u32* cancelled) {                                                                                          \
        gemm<COLUMNS>({m, n, k, a_stride, c_stride, a, b, bias, c, activation, negative_slope}, {flag, cancelled});    \
    }

// For products of few columns, and of more: the columns of a tile, and the blocks of a multiprocessor, for which there
// are registers.
GEMM(32, 4)
GEMM(64, 4)
GEMM(128, 2)
