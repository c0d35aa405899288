// Wedges of nodes that have many of them, counted in arrays in shared memory.
#pragma once

#include "wedges.cuh"

constexpr u32 ARRAY_THREADS = 1024;
constexpr u32 UNITS_PER_WORD = 8;    // of 4 bits
constexpr u32 AHEAD = 16;            // loads in flight
constexpr u32 ROUNDS_PER_CHECK = 64; // rounds of AHEAD loads of a warp, between two checks of the signal

// The first numbers of nodes with counters of 8, 16 and 32 bits.
struct Widths {
    u32 first_8, first_16, first_32;

    __device__ u32 mask(u32 number) const {
        return number < first_8 ? 0xfu : number < first_16 ? 0xffu : number < first_32 ? 0xffffu : 0xffffffffu;
    }

    // The bits of the counters in a word, from this number on, that are above 1.
    __device__ u32 more_than_one(u32 number) const {
        return number < first_8    ? 0xeeeeeeeeu
               : number < first_16 ? 0xfefefefeu
               : number < first_32 ? 0xfffefffeu
                                   : 0xfffffffeu;
    }
};

// Counters of a window of the numbers, from `first`, with `words` words for each side.
template <u32 SIDES> struct ArrayCounters {
    u32* memory;
    u32 words, first;
    Widths widths;

    __device__ void add(u32 side, u32 number) const {
        const u32 at = number - first;
        atomicAdd(&memory[side * words + at / UNITS_PER_WORD], 1u << at % UNITS_PER_WORD * 4);
    }

    __device__ u32 get(u32 side, u32 number) const {
        const u32 at = number - first;
        return memory[side * words + at / UNITS_PER_WORD] >> at % UNITS_PER_WORD * 4 & widths.mask(number);
    }
};

// Calls `work(column)` for each end of the wedges of `node` on one side that is in first..last, and `done(middle)`
// after those of each node in the middle in all lanes. Each warp takes nodes in the middle by itself.
template <class Work, class Done>
static __device__ void for_each_end(const Side& graph, u32 node, u32 first, u32 last, CancelSignal cancel, Work work,
                                    Done done) {
    constexpr u32 WARPS = ARRAY_THREADS / 32;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 begin = graph.offsets[node], end = lower_bound(graph.columns, begin, graph.offsets[node + 1], node);
    const u32 chunk = min(32u, max(1u, (end - begin + WARPS - 1) / WARPS));
    u32 rounds = 0;
    for (u32 base = begin + warp * chunk; base < end; base += WARPS * chunk) {
        // A lane prepares a row.
        u32 middle = 0, row = 0, row_end = 0;
        if (lane < chunk && base + lane < end) {
            middle = graph.columns[base + lane];
            row = graph.offsets[middle];
            row_end = row + graph.lower[base + lane];
            if (first > 0) row = lower_bound(graph.columns, row, row_end, first);
            if (last < node) row_end = lower_bound(graph.columns, row, row_end, last);
        }
        for (u32 rows = __ballot_sync(ALL, row < row_end); rows != 0; rows &= rows - 1) {
            const u32 from = __ffs(rows) - 1;
            const u32 at_end = __shfl_sync(ALL, row_end, from);
            const u32 at_begin = __shfl_sync(ALL, row, from);
            for (u32 first_at = at_begin; first_at < at_end; first_at += 32 * AHEAD) {
                if (++rounds % ROUNDS_PER_CHECK == 0) {
                    if (__any_sync(ALL, is_cancelled_at(cancel, rounds / ROUNDS_PER_CHECK))) return;
                }
                const u32 at = first_at + lane;
                u32 columns[AHEAD];
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    columns[i] = at + 32 * i < at_end ? __ldg(graph.columns + at + 32 * i) : NO_NUMBER;
                }
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    if (columns[i] != NO_NUMBER) work(columns[i]);
                }
            }
            done(__shfl_sync(ALL, middle, from));
        }
    }
}

// Adds the cycles of four nodes with their highest node, of which the end opposite it is in the window of the counters,
// to the nodes next to it.
template <u32 SIDES>
static __device__ void add_middles(const ArrayCounters<SIDES>& counters, u32 node, u32 last, const Side* sides,
                                   const Counts<true>& out, CancelSignal cancel) {
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        u64 count = 0;
        const auto add = [&](u32 end) { count += counters.get(SIDES - 1 - side, end) - (SIDES == 2 ? 0 : 1); };
        const auto done = [&](u32 middle) {
            count = sum_lanes<32>(count);
            if (threadIdx.x % 32 == 0 && count > 0) out.add_four(middle, count);
            count = 0;
        };
        for_each_end(sides[side], node, counters.first, last, cancel, add, done);
    }
}

// Adds the cycles of four nodes to the ends opposite their highest node. Returns their sum over the words of the
// thread. A warp takes 32 words at a time, and four of them at once: a lane for each unit, so that it adds to
// neighbouring counts.
template <u32 SIDES>
static __device__ u64 add_ends(const ArrayCounters<SIDES>& counters, u32 words, const Counts<true>& out) {
    const u32 lane = threadIdx.x % 32, unit = lane % UNITS_PER_WORD;
    u64 squares = 0;
    for (u32 base = threadIdx.x - lane; base < words; base += ARRAY_THREADS) {
        const u32 own = base + lane;
        const u32 outward = own < words ? counters.memory[own] : 0;
        const u32 inward = SIDES == 2 && own < words ? counters.memory[counters.words + own] : 0;
        const u32 more = counters.widths.more_than_one(counters.first + own * UNITS_PER_WORD);
        const u32 pending = __ballot_sync(ALL, SIDES == 2 ? outward != 0 && inward != 0 : (outward & more) != 0);
        for (u32 first = 0; first < 32; first += 32 / UNITS_PER_WORD) {
            if ((pending >> first) % 16 == 0) continue;
            const u32 from = first + lane / UNITS_PER_WORD;
            const u32 both[2] = {__shfl_sync(ALL, outward, from), __shfl_sync(ALL, inward, from)};
            const u32 number = counters.first + (base + from) * UNITS_PER_WORD;
            const u32 mask = counters.widths.mask(number), shift = 4 * unit;
            // A counter of several units is that of the first.
            if (shift % __popc(mask) != 0) continue;
            const u64 count = squares_of<SIDES>(both[0] >> shift & mask, both[1] >> shift & mask);
            if (count > 0) out.add_four(number + unit, count);
            squares += count;
        }
    }
    return squares;
}

// Returns the cycles of four nodes over the words of the thread, which it sets to 0.
static __device__ u64 take_ends(const ArrayCounters<1>& counters, u32 words) {
    u64 squares = 0;
    for (u32 word = threadIdx.x; word < words; word += ARRAY_THREADS) {
        const u32 all = counters.memory[word], number = counters.first + word * UNITS_PER_WORD;
        counters.memory[word] = 0;
        if ((all & counters.widths.more_than_one(number)) == 0) continue;
        const u32 mask = counters.widths.mask(number), bits = __popc(mask);
        for (u32 shift = 0; shift < 32; shift += bits) squares += squares_of<1>(all >> shift & mask, 0);
    }
    return squares;
}

// Counts the cycles at one node by a block, of which the end opposite it is in the window of the counters, which are 0
// before and after.
template <u32 SIDES, bool PER_NODE>
static __device__ void count_in_window(const ArrayCounters<SIDES>& counters, u32 node, const Side* sides,
                                       Counts<PER_NODE> out, CancelSignal cancel) {
    const u32 first = counters.first, last = min(node, first + counters.words * UNITS_PER_WORD);
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        for_each_end(sides[side], node, first, last, cancel, [&](u32 end) { counters.add(side, end); }, [](u32) {});
    }
    __syncthreads();
    u64 triangles = 0, squares = 0;
#pragma unroll
    for (u32 side = 0; PER_NODE && side < SIDES; side++) {
        const Side& graph = sides[side];
        u32 begin = graph.offsets[node], end = graph.offsets[node + 1];
        if (first > 0) begin = lower_bound(graph.columns, begin, end, first);
        end = lower_bound(graph.columns, begin, end, last);
        triangles += add_triangles<SIDES>(counters, side, graph.columns, begin, end, threadIdx.x, ARRAY_THREADS,
                                          out.three);
    }
    const u32 words = (last - first + UNITS_PER_WORD - 1) / UNITS_PER_WORD;
    if constexpr (PER_NODE) {
        squares = add_ends(counters, words, out);
    } else {
        squares = take_ends(counters, words);
    }
    add_sums(triangles, squares, node, out);
    if constexpr (PER_NODE) {
        if (__syncthreads_or(squares > 0) != 0) {
            add_middles<SIDES>(counters, node, last, sides, out, cancel);
            __syncthreads();
        }
        const u32 packs = (words + 3) / 4;
#pragma unroll
        for (u32 side = 0; side < SIDES; side++) {
            uint4* memory = (uint4*)(counters.memory + side * counters.words);
            for (u32 pack = threadIdx.x; pack < packs; pack += ARRAY_THREADS) memory[pack] = make_uint4(0, 0, 0, 0);
        }
    }
}

// `words` is a multiple of 4.
template <u32 SIDES, bool PER_NODE>
static __device__ void count_by_arrays(u32 numbers, u32 words, Widths widths, const Side* sides, const u32* list,
                                       Control* control, Counts<PER_NODE> out, CancelSignal cancel) {
    extern __shared__ __align__(16) u32 array[];
    const u32 window = words * UNITS_PER_WORD, windows = (numbers + window - 1) / window;
    for (u32 word = threadIdx.x; word < SIDES * words; word += ARRAY_THREADS) array[word] = 0;
    const u64 listed = (u64)control->listed[2] * windows;
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[2], listed, number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 node = list[at / windows], first = (u32)(at % windows) * window;
        if (first >= node) continue;
        const ArrayCounters<SIDES> counters{array, words, first, widths};
        count_in_window<SIDES, PER_NODE>(counters, node, sides, out, cancel);
    }
}
