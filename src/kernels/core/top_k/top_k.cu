// The first k numbers of each row in their order, with their indices; numbers that are equal by lowest index.
//
// A block reads a part of a row and collects entries, see collect.cuh. Blocks of a row share the best of their bounds, so
// that soon few of the entries that are read are collected. A second launch, and a third where there are many, does the
// same with what the blocks of each row have kept, until one block has all of it, sorts it and writes the output. The
// input is read once. Long rows are selected from by one launch, see long_rows.cuh.
//
// A bound is at or after the k-th entry of some part of the row, and so at or after that of the row: what it excludes
// is not among the first k. Which entries are collected depends on timing, and the first k of them do not.

#include "collect.cuh"
#include "long_rows.cuh"

// Reads the numbers of a row: N items for each thread and step.
template <class Key> struct NumberReader {
    static constexpr u32 PACK = 16 / sizeof(Key), PACKS = 4, N = PACK * PACKS, STEP = N * THREADS;
    static constexpr u32 SPAN = 8;
    const Key* numbers;
    u32 n;
    NumberOrder<Key> order;

    __device__ u64 steps() const { return ((u64)n + STEP - 1) / STEP; }

    __device__ u64 index(u64 step, u32 item) const {
        return step * STEP + (item / PACK * THREADS + threadIdx.x) * PACK + item % PACK;
    }

    __device__ Entry<Key> entry(u64 step, u32 item) const {
        return {order.to_ordered(numbers[index(step, item)]), (u32)index(step, item)};
    }

    // A bit for each item whose key is not after the bound.
    __device__ u32 items_before(u64 step, Key bound) const {
        Key keys[N];
        u32 there = ~0u;
        if ((u64)numbers % 16 == 0 && (step + 1) * STEP <= n) {
#pragma unroll
            for (u32 pack = 0; pack < PACKS; pack++) {
                const uint4 words = __ldcs((const uint4*)(numbers + index(step, pack * PACK)));
                memcpy(keys + pack * PACK, &words, sizeof(words));
            }
        } else {
#pragma unroll
            for (u32 item = 0; item < N; item++) {
                const bool is_there = index(step, item) < n;
                keys[item] = is_there ? numbers[index(step, item)] : 0;
                if (!is_there) there &= ~(1u << item);
            }
        }
        u32 before = 0;
#pragma unroll
        for (u32 item = 0; item < N; item++) {
            if (order.to_ordered(keys[item]) <= bound) before |= 1u << item;
        }
        return before & there;
    }
};

// The block of a part of a row; the parts take spans by turns. `row_bounds` is all ones before the first launch.
template <class Key, class Reader>
static __device__ void top_k(
    const Reader& reader, u32 k, u32 parts, NumberOrder<Key> order, Key* row_bounds, Key* keys, u32* indices) {
    Shared<Key>& shared = shared_of_block<Key>();
    const u32 row = blockIdx.x / parts, part = blockIdx.x % parts;
    clear_entries<Key>();
    Collector<Key> collector = {shared, k, {~Key(0), NO_INDEX}, row_bounds + row};
    for (u64 start = (u64)part * Reader::SPAN; start < reader.steps(); start += (u64)parts * Reader::SPAN) {
        collector.share_bound();
        collector.read_span(reader, start, min(start + Reader::SPAN, reader.steps()));
    }
    const u64 written = ((u64)row * parts + part) * k;
    keys += written;
    indices += written;
    if (parts == 1) return collector.write_sorted(order, keys, indices);
    collector.keep_k();
    for (u32 place = threadIdx.x; place < k; place += THREADS) {
        const bool is_there = place < shared.count;
        keys[place] = is_there ? shared.keys[place] : ~Key(0);
        indices[place] = is_there ? shared.indices[place] : NO_INDEX;
    }
}

#define TOP_K(KEY)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) top_k_numbers_##KEY(u32 n, u32 k, u32 parts, u32 kind,   \
        u32 descending, const KEY* numbers, KEY* row_bounds, KEY* keys, u32* indices) {                               \
        const NumberOrder<KEY> order(kind, descending != 0);                                                          \
        const NumberReader<KEY> reader = {numbers + (u64)(blockIdx.x / parts) * n, n, order};                         \
        top_k<KEY>(reader, k, parts, order, row_bounds, keys, indices);                                               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) top_k_candidates_##KEY(u32 n, u32 k, u32 parts, u32 kind,\
        u32 descending, const KEY* from_keys, const u32* from_indices, KEY* row_bounds, KEY* keys, u32* indices) {    \
        const u64 start = (u64)(blockIdx.x / parts) * n;                                                              \
        const CandidateReader<KEY> reader = {from_keys + start, from_indices + start, n};                             \
        const NumberOrder<KEY> order(kind, descending != 0);                                                          \
        top_k<KEY>(reader, k, parts, order, row_bounds, keys, indices);                                               \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) top_k_long_rows_##KEY(u32 n, u32 k, u32 parts,            \
        u32 steps_of_group, u32 minima_of_block, u32 kind, u32 descending, const KEY* numbers, RowProgress* progress,   \
        KEY* minima, u32* minima_indices, KEY* collected, u32* collected_indices, KEY* keys, u32* indices) {           \
        const LongRows<KEY> rows = {n, k, parts, steps_of_group, minima_of_block,                                      \
            NumberOrder<KEY>(kind, descending != 0), progress, minima, minima_indices, collected, collected_indices};  \
        top_k_of_long_row<KEY>(rows, numbers, keys, indices);                                                          \
    }

TOP_K(u32)
TOP_K(u64)
