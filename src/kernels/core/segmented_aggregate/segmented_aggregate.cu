// Aggregates of the values with each key, of rows that are sorted by key. src/kernels/core/segmented_aggregate/cuda.rs
// launches these entries:
//
//   aggregate_begins_*    lists where the rows of each key begin
//   aggregate_keys_*      writes the key and the number of rows of each group
//   aggregate_tiles_*     reduces the values of a tile of the rows
//   aggregate_spans_*     adds up what several tiles have of a group
//
// Each row of keys and of values is read once. segmented_reduce.cuh has the algorithm.

#include "scan.cuh"
#include "ordered_bits.cuh"
#include "segmented_reduce.cuh"

// ---- groups

// Keys are integers, which compare as their bits with those of `flip` flipped. descent[0] becomes the lowest index of a
// key that is below the one before it.
template <class Key>
static __device__ void group_begins(u64 n, Key flip, const Key* keys, u64* scan_tiles, u32* next_tile, u32* begins,
    u32* tile_begins, u32* descent) {
    const auto is_first = [=](u64 i) {
        if (i == 0) return true;
        const Key before = keys[i - 1] ^ flip, own = keys[i] ^ flip;
        if (own < before) atomicMin(descent, (u32)i);
        return own != before;
    };
    segment_begins(n, scan_tiles, next_tile, is_first, begins, tile_begins);
}

#define GROUPS(KEY)                                                                                                   \
    extern "C" __global__ void SCAN aggregate_begins_##KEY(u64 n, u32 kind, const KEY* keys,                          \
        u64* scan_tiles, u32* next_tile, u32* begins, u32* tile_begins, u32* descent) {                               \
        group_begins<KEY>(n, NumberOrder<KEY>(kind, false).flip, keys, scan_tiles, next_tile, begins, tile_begins, descent);               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) aggregate_keys_##KEY(u64 n, u32 groups, const KEY* keys,        \
        const u32* begins, KEY* keys_out, u32* counts) {                                                              \
        const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x, threads = (u64)gridDim.x * blockDim.x;         \
        for (u64 group = thread; group < groups; group += threads) {                                                  \
            const u32 begin = begins[group];                                                                          \
            const u64 end = group + 1 < groups ? begins[group + 1] : n;                                               \
            keys_out[group] = keys[begin];                                                                            \
            counts[group] = (u32)(end - begin);                                                                       \
        }                                                                                                             \
    }

GROUPS(u32)
GROUPS(u64)

// ---- values

// The sum of fewer than 2^32 integers of 32 bits, as ordered bits.
struct Sum32 {
    u64 low;
    __device__ static Sum32 identity() { return {0}; }
    __device__ static Sum32 of(u32 bits, u32 ordered) { return {ordered}; }
    __device__ void merge(const Sum32& later) { low += later.low; }
    __device__ void store(u32 group, u64* lows, u64* highs) const { lows[group] = low; }
};

// The sum of integers of 64 bits, as ordered bits.
struct Sum64 {
    u64 low;
    u64 high;
    __device__ static Sum64 identity() { return {0, 0}; }
    __device__ static Sum64 of(u64 bits, u64 ordered) { return {ordered, 0}; }
    __device__ void merge(const Sum64& later) {
        low += later.low;
        high += later.high + (low < later.low);
    }
    __device__ void store(u32 group, u64* lows, u64* highs) const {
        lows[group] = low;
        highs[group] = high;
    }
};

// The sum of floating-point numbers. Adding -0 changes no number.
struct SumFloat {
    double sum;
    __device__ static SumFloat identity() { return {-0.0}; }
    __device__ static SumFloat of(u32 bits, u32 ordered) { return {__uint_as_float(bits)}; }
    __device__ static SumFloat of(u64 bits, u64 ordered) { return {__longlong_as_double((long long)bits)}; }
    __device__ void merge(const SumFloat& later) { sum += later.sum; }
    __device__ void store(u32 group, u64* lows, u64* highs) const {
        lows[group] = (u64)__double_as_longlong(sum);
    }
};

// The sum, and the smallest and the largest value: of these the highest of the ordered bits, in descending and in
// ascending order. Those of NaN are the highest in both.
template <class Bits, class Sum> struct Aggregates {
    Sum sum;
    Bits min;
    Bits max;

    __device__ static Aggregates identity() { return {Sum::identity(), 0, 0}; }

    __device__ void merge(const Aggregates& later) {
        sum.merge(later.sum);
        min = min < later.min ? later.min : min;
        max = max < later.max ? later.max : max;
    }
};

// Where the aggregates of the groups go; null where they are not asked for. `highs` is for 64-bit integers.
template <class Bits> struct Columns {
    u64* lows;
    u64* highs;
    Bits* mins;
    Bits* maxs;
};

// Called, and not inlined for each element of a thread: that would be most of the code.
template <class Bits, class Sum>
static __device__ __noinline__ void store_group(
    u32 group, Aggregates<Bits, Sum> state, u32 kind, Columns<Bits> columns) {
    if (columns.lows != nullptr) state.sum.store(group, columns.lows, columns.highs);
    if (columns.mins != nullptr) columns.mins[group] = NumberOrder<Bits>(kind, true).from_ordered(state.min);
    if (columns.maxs != nullptr) columns.maxs[group] = NumberOrder<Bits>(kind, false).from_ordered(state.max);
}

// `indices` has the row of each value; where it is null, the values are in the order of the keys.
template <class Bits, class Sum>
static __device__ void aggregate_tile(u64 n, u32 tile, u32 kind, const Bits* values, const u32* indices,
    const u32* begins, const u32* tile_begins, Aggregates<Bits, Sum>* leads, Aggregates<Bits, Sum>* tails,
    const Columns<Bits>& columns) {
    const NumberOrder<Bits> ascending(kind, false), descending(kind, true);
    const auto load = [=](u64 i) { return values[indices == nullptr ? i : indices[i]]; };
    const auto state_of = [=](Bits bits) -> Aggregates<Bits, Sum> {
        const Bits ordered = ascending.to_ordered(bits);
        return {Sum::of(bits, ordered), descending.to_ordered(bits), ordered};
    };
    const auto store = [=](u32 group, const Aggregates<Bits, Sum>& state) { store_group(group, state, kind, columns); };
    reduce_tile<Aggregates<Bits, Sum>, Bits>(n, tile, begins, tile_begins, leads, tails, load, state_of, store);
}

#define VALUES(NAME, BITS, SUM)                                                                                       \
    extern "C" __global__ void SEGMENTED_REDUCE aggregate_tiles_##NAME(u64 n, u32 first_tile, u32 kind,               \
        const BITS* values, const u32* indices, const u32* begins, const u32* tile_begins, u64* leads, u64* tails,    \
        u64* lows, u64* highs, BITS* mins, BITS* maxs) {                                                              \
        typedef Aggregates<BITS, SUM> State;                                                                          \
        aggregate_tile<BITS, SUM>(n, first_tile + blockIdx.x, kind, values, indices, begins, tile_begins,             \
            (State*)leads, (State*)tails, {lows, highs, mins, maxs});                                                 \
    }                                                                                                                 \
    extern "C" __global__ void SEGMENTED_REDUCE aggregate_spans_##NAME(u64 n, u32 tiles, u32 groups, u32 kind,        \
        const u32* begins, const u32* tile_begins, const u64* leads, const u64* tails, u64* lows, u64* highs,         \
        BITS* mins, BITS* maxs) {                                                                                     \
        typedef Aggregates<BITS, SUM> State;                                                                          \
        const Columns<BITS> columns = {lows, highs, mins, maxs};                                                      \
        const auto store = [=](u32 group, const State& state) { store_group(group, state, kind, columns); };          \
        reduce_spans<State>(n, blockIdx.x * SEGMENTED_THREADS, tiles, groups, begins, tile_begins,                    \
            (const State*)leads, (const State*)tails, store);                                                         \
    }

VALUES(u32, u32, Sum32)
VALUES(u64, u64, Sum64)
VALUES(f32, u32, SumFloat)
VALUES(f64, u64, SumFloat)
