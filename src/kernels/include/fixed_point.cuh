// Exact sums of f64 numbers from 2^-5 to below 2: as multiples of 2^-57, which all of these are, in 96 bits. The sum of up
// to 2^38 numbers is exact whatever their order, and is rounded once.
//
//   struct FixedSum sum = {0, 0};        // a thread's own sum
//   sum.add(units);                      // `units` is the number times 2^57
//   sum = sum_warp(sum);                 // in all lanes
//   add_to_words(low, middle, high, units);  // in three words of shared memory, by many threads
//   double value = to_double(high, units);
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr double FIXED_UNIT = 1.0 / (1ull << 57);

struct FixedSum {
    u64 low, high;

    __device__ void add(u64 units) {
        low += units;
        high += low < units;
    }

    __device__ void merge(FixedSum other) {
        add(other.low);
        high += other.high;
    }
};

static __device__ FixedSum sum_warp(FixedSum sum) {
    for (u32 delta = 16; delta > 0; delta /= 2) {
        const u64 low = __shfl_xor_sync(0xffffffffu, sum.low, delta), high = __shfl_xor_sync(0xffffffffu, sum.high, delta);
        sum.merge({low, high});
    }
    return sum;
}

// Adds to a sum of 96 bits, of which each word is changed by atomic operations alone. Without `high`, sums stay below 2^64.
static __device__ void add_to_words(u32* low, u32* middle, u32* high, u64 units) {
    const u32 units_low = (u32)units;
    u32 carried = (u32)(units >> 32);
    if (atomicAdd(low, units_low) > ~units_low) carried++; // `carried` is below 2^27
    const u32 old = atomicAdd(middle, carried);
    if (old > ~carried && high != nullptr) atomicAdd(high, 1);
}

// The nearest number, or that with an even last bit.
static __device__ double to_double(FixedSum sum) {
    if (sum.high == 0) return __ull2double_rn(sum.low) * FIXED_UNIT;
    // The lowest bit stands for all that are shifted out.
    const u32 shift = 64 - __clzll(sum.high);
    const u64 upper = shift == 64 ? sum.high : sum.high << (64 - shift) | sum.low >> shift;
    const u64 lost = shift == 64 ? sum.low : sum.low << (64 - shift);
    return ldexp(__ull2double_rn(upper | (lost != 0)), (int)shift) * FIXED_UNIT;
}
