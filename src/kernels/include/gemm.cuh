// Dense matrix product in single precision: C = activation(A B + bias).
//
// A is float[m, k] with rows `a_stride` apart, B float[k, n], C float[m, n] with rows `c_stride` apart, all row by row;
// `bias` is float[n] or null. Products are added up by fused multiply-adds in the order of k, so that an element has
// the same bits whatever else is computed. The units for single precision are used and not tensor cores, which round
// the factors to 11 bits.
//
// A block computes GEMM_ROWS rows and COLUMNS columns of C, a thread 8 rows and 8 columns of these, in registers. Tiles
// of A and B go through shared memory, A transposed, while the next ones are read into registers. Neighbouring blocks
// take neighbouring columns of the same rows, so that A is read from memory once.
#pragma once

#include "activation.cuh"
#include "cancel.cuh"

constexpr u32 GEMM_ROWS = 128;
constexpr u32 GEMM_DEPTH = 16;
constexpr u32 GEMM_MICRO = 8;  // rows and columns of a thread
constexpr u32 GEMM_UNROLL = 8; // of the depth

// The matrices of a product, and what is done to its elements.
struct Gemm {
    u32 m, n, k, a_stride, c_stride;
    const float* a;
    const float* b;
    const float* bias;
    float* c;
    u32 activation;
    float negative_slope;
};

template <u32 COLUMNS> struct GemmTiles {
    static constexpr u32 THREADS = GEMM_ROWS * COLUMNS / (GEMM_MICRO * GEMM_MICRO);
    static constexpr u32 A_QUADS = GEMM_ROWS * GEMM_DEPTH / 4 / THREADS;
    static constexpr u32 B_QUADS = GEMM_DEPTH * COLUMNS / 4 / THREADS;
    // A warp computes WARP_ROWS rows and WARP_COLUMNS columns.
    static constexpr u32 LANES_WIDE = COLUMNS < 64 ? COLUMNS / GEMM_MICRO : 8;
    static constexpr u32 WARP_COLUMNS = LANES_WIDE * GEMM_MICRO;
    static constexpr u32 WARP_ROWS = 32 / LANES_WIDE * GEMM_MICRO;
    static constexpr u32 WARPS_WIDE = COLUMNS / WARP_COLUMNS;

    // The padding keeps quads aligned.
    float a[2][GEMM_DEPTH][GEMM_ROWS + 4];
    float b[2][GEMM_DEPTH][COLUMNS];
};

// Four numbers of a row from `column` on; 0 where the row ends before. `is_aligned` says that quads of the matrix are.
static __device__ float4 gemm_quad(const float* matrix, u64 row, u32 stride, u32 column, u32 columns, bool is_aligned) {
    const float* const from = matrix + row * stride + column;
    if (is_aligned && column + 4 <= columns) return __ldg((const float4*)from);
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (column < columns) quad.x = __ldg(from);
    if (column + 1 < columns) quad.y = __ldg(from + 1);
    if (column + 2 < columns) quad.z = __ldg(from + 2);
    if (column + 3 < columns) quad.w = __ldg(from + 3);
    return quad;
}

template <u32 COLUMNS> static __device__ void gemm(const Gemm& product, CancelSignal cancel) {
    typedef GemmTiles<COLUMNS> Tiles;
    __shared__ Tiles tiles;
    if (is_cancelled(cancel)) return;
    const u32 column_tiles = (product.n + COLUMNS - 1) / COLUMNS;
    const u64 first_row = (u64)(blockIdx.x / column_tiles) * GEMM_ROWS;
    const u32 first_column = blockIdx.x % column_tiles * COLUMNS;
    const bool a_is_aligned = product.a_stride % 4 == 0 && ((u64)product.a & 15) == 0;
    const bool b_is_aligned = product.n % 4 == 0 && ((u64)product.b & 15) == 0;

    // Rows after the last are those of the last, and are not stored.
    float4 a_next[Tiles::A_QUADS], b_next[Tiles::B_QUADS];
    const auto read = [&](u32 depth) {
#pragma unroll
        for (u32 i = 0; i < Tiles::A_QUADS; i++) {
            const u32 at = threadIdx.x + i * Tiles::THREADS;
            const u64 row = min(first_row + at / 4, (u64)product.m - 1);
            a_next[i] = gemm_quad(product.a, row, product.a_stride, depth + at % 4 * 4, product.k, a_is_aligned);
        }
#pragma unroll
        for (u32 i = 0; i < Tiles::B_QUADS; i++) {
            const u32 at = threadIdx.x + i * Tiles::THREADS;
            const u32 row = depth + at / (COLUMNS / 4), column = first_column + at % (COLUMNS / 4) * 4;
            const u32 columns = row < product.k ? product.n : 0;
            b_next[i] = gemm_quad(product.b, row, product.n, column, columns, b_is_aligned);
        }
    };
    const auto store = [&](u32 buffer) {
#pragma unroll
        for (u32 i = 0; i < Tiles::A_QUADS; i++) {
            const u32 at = threadIdx.x + i * Tiles::THREADS;
            float* const to = &tiles.a[buffer][at % 4 * 4][at / 4];
            to[0] = a_next[i].x;
            to[GEMM_ROWS + 4] = a_next[i].y;
            to[2 * (GEMM_ROWS + 4)] = a_next[i].z;
            to[3 * (GEMM_ROWS + 4)] = a_next[i].w;
        }
#pragma unroll
        for (u32 i = 0; i < Tiles::B_QUADS; i++) {
            const u32 at = threadIdx.x + i * Tiles::THREADS;
            *(float4*)&tiles.b[buffer][at / (COLUMNS / 4)][at % (COLUMNS / 4) * 4] = b_next[i];
        }
    };

    // The 8 rows of a thread are two quads half a warp's rows apart, and so are its columns: no two lanes of a quarter
    // of a warp read different words of a bank.
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 row = warp / Tiles::WARPS_WIDE * Tiles::WARP_ROWS + lane / Tiles::LANES_WIDE * 4;
    const u32 column = warp % Tiles::WARPS_WIDE * Tiles::WARP_COLUMNS + lane % Tiles::LANES_WIDE * 4;
    float sums[GEMM_MICRO][GEMM_MICRO] = {};
    const u32 steps = (product.k + GEMM_DEPTH - 1) / GEMM_DEPTH;
    for (u32 step = 0; step <= steps; step++) {
        if (step < steps) read(step * GEMM_DEPTH);
        if (step > 0) {
            const u32 buffer = (step - 1) % 2;
#pragma unroll GEMM_UNROLL
            for (u32 i = 0; i < GEMM_DEPTH; i++) {
                float a[GEMM_MICRO], b[GEMM_MICRO];
                *(float4*)a = *(const float4*)&tiles.a[buffer][i][row];
                *(float4*)(a + 4) = *(const float4*)&tiles.a[buffer][i][row + Tiles::WARP_ROWS / 2];
                *(float4*)b = *(const float4*)&tiles.b[buffer][i][column];
                *(float4*)(b + 4) = *(const float4*)&tiles.b[buffer][i][column + Tiles::WARP_COLUMNS / 2];
#pragma unroll
                for (u32 y = 0; y < GEMM_MICRO; y++) {
#pragma unroll
                    for (u32 x = 0; x < GEMM_MICRO; x++) sums[y][x] = fmaf(a[y], b[x], sums[y][x]);
                }
            }
        }
        // The other buffer, which all threads have read before the last barrier.
        if (step < steps) store(step % 2);
        __syncthreads();
    }

    const bool c_is_aligned = product.c_stride % 4 == 0 && ((u64)product.c & 15) == 0;
#pragma unroll
    for (u32 x = 0; x < GEMM_MICRO; x += 4) {
        const u32 c_column = first_column + column + x / 4 * (Tiles::WARP_COLUMNS / 2);
        float bias[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            bias[i] = product.bias != nullptr && c_column + i < product.n ? __ldg(product.bias + c_column + i) : 0.0f;
        }
#pragma unroll
        for (u32 y = 0; y < GEMM_MICRO; y++) {
            const u64 c_row = first_row + row + y / 4 * (Tiles::WARP_ROWS / 2) + y % 4;
            if (c_row >= product.m) continue;
            float out[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                out[i] = activate(product.activation, product.negative_slope, sums[y][x + i] + bias[i]);
            }
            float* const to = product.c + c_row * product.c_stride + c_column;
            if (c_is_aligned && c_column + 4 <= product.n) {
                *(float4*)to = *(const float4*)out;
            } else {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    if (c_column + i < product.n) to[i] = out[i];
                }
            }
        }
    }
}
