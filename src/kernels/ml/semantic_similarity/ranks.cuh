// Ranks: how they follow from products, and unsigned integers that order as they do.

#ifndef TOWER_KERNELS_RANKS
#define TOWER_KERNELS_RANKS

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL_LANES = 0xffffffffu;
// Vectors of a group. cuda.rs has the same number.
constexpr u32 GROUP = 32;
// Parts of the groups, of which the best rank is kept too. cuda.rs has the same number.
constexpr u32 PARTS = 512;

enum Metric : u32 { COSINE = 0, DOT = 1, L2 = 2 };

#define INFINITE __uint_as_float(0x7f800000u)

// How ranks follow from products: (by_one + by_norm / norm) * product - by_square * norm * norm, without conditions.
struct RankOfProduct {
    float by_one, by_norm, by_square;

    __device__ RankOfProduct(u32 metric)
        : by_one(metric == L2 ? 2.0f : metric == DOT ? 1.0f : 0.0f), by_norm(metric == COSINE ? 1.0f : 0.0f),
          by_square(metric == L2 ? 1.0f : 0.0f) {}

    __device__ float factor(float norm) const { return fmaf(by_norm, norm > 0 ? __fdividef(1.0f, norm) : 0.0f, by_one); }

    // To be multiplied with the scale of the query. It is infinite where there is no vector.
    __device__ float penalty(float norm, bool is_row) const { return is_row ? by_square * norm * norm : INFINITE; }
};

// Unsigned integers that order as the numbers, and back.
static __device__ u32 to_ordered(float number) {
    const u32 bits = __float_as_uint(number);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
static __device__ float from_ordered(u32 ordered) {
    return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

#endif
