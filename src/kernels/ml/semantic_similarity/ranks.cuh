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

    // To be multiplied with the scale of the query.
    __device__ float penalty(float norm) const { return by_square * norm * norm; }
};

// The rank of no vector. Whatever its lower bits, it is a number.
#define NO_RANK __uint_as_float(0xff7fffffu)

// The best two ranks of vectors of one group, whose lower bits are the index of the vector in the group.
struct BestTwo {
    static constexpr u32 INDEX_BITS = 5, MARGIN_BITS = 3, INDICES = (1 << INDEX_BITS) - 1, MARGINS = (1 << MARGIN_BITS) - 1;
    static_assert(GROUP == 1 << INDEX_BITS, "an index for each vector");
    float best = NO_RANK, second = NO_RANK;

    __device__ void add(float rank, u32 index) {
        merge(__uint_as_float((__float_as_uint(rank) & ~INDICES) | index), NO_RANK);
    }
    __device__ void merge(float other_best, float other_second) {
        second = fmaxf(fmaxf(second, other_second), fminf(best, other_best));
        best = fmaxf(best, other_best);
    }
    // Adds those of the thread whose lane differs in this bit.
    __device__ void merge_lanes(u32 bit) {
        const float other_best = __shfl_xor_sync(ALL_LANES, best, bit);
        merge(other_best, __shfl_xor_sync(ALL_LANES, second, bit));
    }

    // The best, whose lower bits are a margin too: if it is not 0, all others are worse by 2^margin slacks or more.
    __device__ float packed(float inverse_slack) const {
        const int exponent = int(__float_as_uint((best - second) * inverse_slack) >> 23) - 127;
        const u32 bits = __float_as_uint(best), margin = max(0, min(exponent, int(MARGINS)));
        return __uint_as_float((bits & ~(MARGINS << INDEX_BITS)) | margin << INDEX_BITS);
    }
    static __device__ u32 index(float packed) { return __float_as_uint(packed) & INDICES; }
    // What all others are at most.
    static __device__ float others(float packed, float slack) {
        const u32 margin = __float_as_uint(packed) >> INDEX_BITS & MARGINS;
        return margin > 0 ? packed - slack * float(1u << margin) : packed;
    }
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
