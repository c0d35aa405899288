// Wedges of nodes that have few of them, counted in hash tables in shared memory.
#pragma once

#include "hash_table.cuh"
#include "intersect.cuh"
#include "wedges.cuh"

constexpr u32 WARP_WEDGES = 256;   // of a node for a warp, at most
constexpr u32 WARP_SLOTS = 480;
constexpr u32 BLOCK_WEDGES = 2048; // of a node for a block with a table, at most
constexpr u32 BLOCK_SLOTS = 3840;
constexpr u32 NODES_PER_WARP = 8;  // that a warp takes at a time

// Counters in a hash table.
template <u32 SIDES> struct TableCounters {
    CountTable table; // counts of the first side

    __device__ void add(u32 side, u32 number) const { atomicAdd(table.insert(number) + side * table.slots, 1); }

    // A node that may not be there.
    __device__ u32 get(u32 side, u32 number) const {
        const u32* count = table.find(number);
        return count == nullptr ? 0 : count[side * table.slots];
    }
};

// Adds the cycles of four nodes with their highest node to the nodes next to it.
template <u32 SIDES, u32 LANES, class Group, class Counters>
static __device__ void add_middles(Group group, const Counters& counters, u32 node, const u32* ends, const Side* sides,
                                   const Counts<true>& out) {
    const u32 lane = group.rank() % LANES, part = group.rank() / LANES;
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        const Side& graph = sides[side];
        const u32 begin = graph.offsets[node], rows = ends[side] - begin;
        // All lanes of a warp take part in the sum.
        for (u32 base = 0; base < rows; base += Group::SIZE / LANES) {
            u64 count = 0;
            u32 middle = 0;
            if (base + part < rows) {
                const u32 at = begin + base + part;
                middle = graph.columns[at];
                const u32 row = graph.offsets[middle], row_end = row + graph.lower[at];
                for (u32 i = row + lane; i < row_end; i += LANES) {
                    count += counters.get(SIDES - 1 - side, graph.columns[i]) - (SIDES == 2 ? 0 : 1);
                }
            }
            count = sum_lanes<LANES>(count);
            if (lane == 0 && count > 0) out.add_four(middle, count);
        }
    }
}

// Counts the cycles at one node by a group of threads with a table, of whom LANES work on a row.
template <u32 SIDES, bool PER_NODE, u32 LANES, class Group>
static __device__ void count_with_table(Group group, u32* memory, u32 max_slots, u32 node, u64 num_wedges,
                                        const Side* sides, Counts<PER_NODE> out) {
    const u32 slots = min(max_slots, max(16u, 2 * (u32)num_wedges));
    const TableCounters<SIDES> counters{CountTable(memory, memory + slots, slots)};
    for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
        memory[slot] = NO_KEY;
        for (u32 side = 0; side < SIDES; side++) memory[(1 + side) * slots + slot] = 0;
    }
    group.sync();
    const u32 lane = group.rank() % LANES, part = group.rank() / LANES;
    u32 ends[SIDES];
#pragma unroll
    for (u32 side = 0; side < SIDES; side++) {
        const Side& graph = sides[side];
        const u32 begin = graph.offsets[node];
        ends[side] = lower_bound(graph.columns, begin, graph.offsets[node + 1], node);
        for (u32 at = begin + part; at < ends[side]; at += Group::SIZE / LANES) {
            const u32 row = graph.offsets[graph.columns[at]], row_end = row + graph.lower[at];
            for (u32 i = row + lane; i < row_end; i += LANES) counters.add(side, graph.columns[i]);
        }
    }
    group.sync();
    u64 triangles = 0, squares = 0;
#pragma unroll
    for (u32 side = 0; PER_NODE && side < SIDES; side++) {
        const Side& graph = sides[side];
        triangles += add_triangles<SIDES>(counters, side, graph.columns, graph.offsets[node], ends[side], group.rank(),
                                          Group::SIZE, out.three);
    }
    for (u32 slot = group.rank(); slot < slots; slot += Group::SIZE) {
        if (memory[slot] == NO_KEY) continue;
        const u64 count = squares_of<SIDES>(memory[slots + slot], memory[SIDES * slots + slot]);
        if (PER_NODE && count > 0) out.add_four(memory[slot], count);
        squares += count;
    }
    add_sums(triangles, squares, node, out);
    if constexpr (PER_NODE) {
        if (group.any(squares > 0)) add_middles<SIDES, LANES>(group, counters, node, ends, sides, out);
    }
}

template <u32 SIDES, bool PER_NODE, u32 LANES>
static __device__ void count_by_warps(const Side* sides, const u64* wedges, const u32* list, Control* control,
                                      Counts<PER_NODE> out, CancelSignal cancel) {
    __shared__ u32 memory[THREADS / 32 * WARP_SLOTS * (1 + SIDES)];
    const u32 warp = threadIdx.x / 32, chunk = THREADS / 32 * NODES_PER_WARP;
    const u32 listed = control->listed[0];
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[0], (listed + chunk - 1) / chunk, number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 begin = (u32)at * chunk, end = min(listed, begin + chunk);
        for (u32 i = begin + warp; i < end; i += THREADS / 32) {
            const u32 node = list[i];
            count_with_table<SIDES, PER_NODE, LANES>(WarpGroup(), memory + warp * WARP_SLOTS * (1 + SIDES), WARP_SLOTS,
                                                     node, wedges[node], sides, out);
            __syncwarp();
        }
    }
}

template <u32 SIDES, bool PER_NODE>
static __device__ void count_by_blocks(const Side* sides, const u64* wedges, const u32* list, Control* control,
                                       Counts<PER_NODE> out, CancelSignal cancel) {
    __shared__ u32 memory[BLOCK_SLOTS * (1 + SIDES)];
    for (u32 number = 0;; number++) {
        const u64 at = take(&control->taken[1], control->listed[1], number, cancel);
        if (at == ALL_TAKEN) break;
        const u32 node = list[at];
        const BlockGroup<THREADS> group;
        count_with_table<SIDES, PER_NODE, 8>(group, memory, BLOCK_SLOTS, node, wedges[node], sides, out);
    }
}
