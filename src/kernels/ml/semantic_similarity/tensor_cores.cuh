// Products of vectors in registers with queries in shared memory, from compute capability 8.0 on.

#ifndef TOWER_KERNELS_TENSOR_CORES
#define TOWER_KERNELS_TENSOR_CORES

#include "number_formats.cuh"

// Bytes from one rounded query to the next in shared memory. Eight threads that read 16 bytes each, four of a query,
// reach all banks.
static __device__ u32 query_stride(u32 padded) { return (2 * padded + 127) / 128 * 128 + 64; }

template <u32 ROUNDED> static __device__ void load_queries(uint4* shared, u32 padded, const u16* rounded) {
    const u32 stride = query_stride(padded) / 16;
    for (u32 i = threadIdx.x; i < ROUNDED * (padded / 8); i += blockDim.x)
        shared[i / (padded / 8) * stride + i % (padded / 8)] = reinterpret_cast<const uint4*>(rounded)[i];
}

#if __CUDA_ARCH__ >= 800
// Numbers of a vector that a thread group multiplies at a time.
constexpr u32 CHUNK = 32;

// Loads what no other thread reads, and brings the line that it is in into the second-level cache.
static __device__ uint4 load_once(const uint4* from) {
    uint4 words;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
        : "l"(from));
    return words;
}

// The 16-bit operands of eight numbers: `parts[0]`, and `parts[1]` with what rounding to it lost.
template <class Corpus, u32 PARTS> struct Operands {
    u32 parts[PARTS][4];
};

template <class Corpus, u32 PARTS>
static __device__ Operands<Corpus, PARTS> operands(const Eight<typename Corpus::Stored>& eight) {
    Operands<Corpus, PARTS> result;
    if constexpr (sizeof(typename Corpus::Stored) == 2) {
        const uint4 words = eight.words[0];
        result.parts[0][0] = words.x;
        result.parts[0][1] = words.y;
        result.parts[0][2] = words.z;
        result.parts[0][3] = words.w;
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float first = eight.numbers[2 * i], second = eight.numbers[2 * i + 1];
            const u32 rounded = Bfloat16::round2(first, second);
            result.parts[0][i] = rounded;
            if constexpr (PARTS > 1) {
                const float first_rest = first - Bfloat16::widen(rounded & 0xffff);
                const float second_rest = second - Bfloat16::widen(rounded >> 16);
                result.parts[1][i] = Bfloat16::round2(first_rest, second_rest);
            }
        }
    }
    return result;
}

// How a block multiplies: the rounded queries in its shared memory, and 16 vectors a warp.
template <class Corpus, u32 COLUMNS, u32 TERMS> struct TensorCores {
    typedef typename Corpus::Format Format;
    static constexpr u32 TILES = COLUMNS / 8, PARTS = sizeof(typename Corpus::Stored) == 4 ? TERMS : 1;
    // Sums of the vectors g and g + 8 with the queries 2 t and 2 t + 1 of each tile of eight.
    float acc[TILES][4];
    // In units of 16 bytes.
    u32 stride;
    uint4* queries;

    __device__ TensorCores(uint4* shared, u32 padded, const u16* rounded) : stride(query_stride(padded) / 16), queries(shared) {
        load_queries<TERMS * COLUMNS>(shared, padded, rounded);
    }

    __device__ void clear() {
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) acc[tile][i] = 0;
    }

    // Adds the products with numbers 32 * chunk + 8 t to + 8 of the vectors g and g + 8.
    __device__ void add(u32 chunk, const Operands<Corpus, PARTS>& upper, const Operands<Corpus, PARTS>& lower) {
        const u32 lane = threadIdx.x % 32;
        const uint4* query = queries + lane / 4 * stride + chunk * (CHUNK / 8) + lane % 4;
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile++) {
#pragma unroll
            for (u32 term = 0; term < TERMS; term++) {
                const uint4 b = query[(term * COLUMNS + 8 * tile) * stride];
#pragma unroll
                for (u32 part = 0; part < PARTS && part + term < TERMS; part++) {
                    const u32(&u)[4] = upper.parts[part];
                    const u32(&l)[4] = lower.parts[part];
                    const u32 first[4] = {u[0], l[0], u[1], l[1]}, second[4] = {u[2], l[2], u[3], l[3]};
                    Format::multiply(acc[tile], first, b.x, b.y);
                    Format::multiply(acc[tile], second, b.z, b.w);
                }
            }
        }
    }
};
#endif

#endif
