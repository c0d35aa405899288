// Single-precision numbers as sums of two half-precision ones, which tensor cores multiply.
//
// A number x is split into high = half(x) and low = half(x - high), as Ootomo and Yokota, *Recovering single precision
// accuracy from tensor cores while surpassing the FP32 theoretical peak performance* (2022), do. A product of two such
// numbers is taken as high * high + high * low + low * high, and what is left out is 2^-22 of it. Points and centroids
// are shifted by the mean of the points and scaled to at most 2^14 before, so that the error of a split number is at
// most 2^-23 of itself or 2^-39 of the largest.
//
// A row of split numbers has chunks of 32 features, each 32 high and then 32 low parts: 128 bytes. Missing features of
// the last chunk are 0.

#ifndef TOWER_KERNELS_KMEANS_SPLIT
#define TOWER_KERNELS_KMEANS_SPLIT

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 CHUNK = 32;
// 16-byte units of a chunk.
constexpr u32 CHUNK_UNITS = 8;

static __device__ u16 to_half(float x) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

static __device__ float from_half(u16 half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
    return x;
}

struct Split {
    u16 high, low;

    __device__ explicit Split(float x) : high(to_half(x)), low(to_half(x - from_half(high))) {}
    __device__ double value() const { return (double)from_half(high) + (double)from_half(low); }
};

// Where the high part of a feature is in the row of split numbers; the low part is CHUNK further on.
static __device__ u32 split_index(u32 feature) { return feature / CHUNK * 2 * CHUNK + feature % CHUNK; }

// Splits two neighbouring features, of which `feature` is even, and stores them. A feature beyond the last is 0.
static __device__ void store_split(u16* row, u32 feature, float first, float second) {
    const Split a(first), b(second);
    *(u32*)(row + split_index(feature)) = a.high | (u32)b.high << 16;
    *(u32*)(row + split_index(feature) + CHUNK) = a.low | (u32)b.low << 16;
}

#endif
