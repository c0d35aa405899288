// What the counters of wedges in tables and in arrays share: the graph, the lists of nodes, and the counts of cycles.
#pragma once

#include "cancel.cuh"
#include "numbering.cuh"

constexpr u32 TAKES_PER_POLL = 16; // takes of a block, of which one polls the host's flag; blocks differ in which
constexpr u64 ALL_TAKEN = ~0ull;

struct Control {
    u32 listed[4]; // nodes in each of three lists
    u64 taken[3];  // of them, or of them in each window, taken
};

// The arcs of one side: see cycles.cu.
struct Side {
    const u32* offsets;
    const u32* columns;
    const u32* lower;
};

// Takes the next index of a list for a block, or ALL_TAKEN at the end of the list and once the request is cancelled.
// All threads of the block call it.
static __device__ u64 take(u64* taken, u64 listed, u32 take_number, CancelSignal cancel) {
    __shared__ u64 next;
    __syncthreads();
    if (threadIdx.x == 0) {
        const bool polls = (take_number + blockIdx.x) % TAKES_PER_POLL == 0;
        const bool ends = cancel.is_seen() || (polls && cancel.poll_cancel());
        const u64 at = ends ? ALL_TAKEN : atomicAdd(taken, 1ull);
        next = at < listed ? at : ALL_TAKEN;
    }
    __syncthreads();
    return next;
}

// The sum over the lanes of a part of a warp, in its first lane.
template <u32 LANES> static __device__ u64 sum_lanes(u64 value) {
#pragma unroll
    for (u32 delta = LANES / 2; delta > 0; delta /= 2) value += __shfl_down_sync(ALL, value, delta, LANES);
    return value;
}

// Where the cycles are counted: for each node, or those of four nodes in all in a single word.
template <bool PER_NODE> struct Counts {
    u64* three;
    u64* four;

    __device__ void add_four(u32 node, u64 count) const { atomicAdd(PER_NODE ? &four[node] : four, count); }
};

// Cycles of four nodes whose end opposite the highest node has these counts of wedges.
template <u32 SIDES> static __device__ u64 squares_of(u32 outward, u32 inward) {
    return SIDES == 2 ? (u64)outward * inward : (u64)outward * (outward - 1) / 2;
}

// Adds the triangles of a node, whose wedges have been counted, with its neighbours in begin..end of a side to those of
// the neighbours. Returns the sum for the node. In an undirected graph all are twice the number, as each triangle of
// the node has two neighbours.
template <u32 SIDES, class Counters>
static __device__ u64 add_triangles(const Counters& counters, u32 side, const u32* columns, u32 begin, u32 end,
                                    u32 rank, u32 size, u64* three) {
    u64 triangles = 0;
    for (u32 at = begin + rank; at < end; at += size) {
        const u32 other = columns[at];
        const u32 count = counters.get(SIDES - 1 - side, other);
        if (count > 0) atomicAdd(&three[other], (SIDES == 2 ? 1 : 2) * (u64)count);
        triangles += SIDES == 2 && side == 0 ? 0 : count;
    }
    return triangles;
}

// Adds the sums over the threads to the cycles of their node.
template <bool PER_NODE>
static __device__ void add_sums(u64 triangles, u64 squares, u32 node, const Counts<PER_NODE>& out) {
    if (PER_NODE) triangles = sum_lanes<32>(triangles);
    squares = sum_lanes<32>(squares);
    if (threadIdx.x % 32 == 0) {
        if (triangles > 0) atomicAdd(&out.three[node], triangles);
        if (squares > 0) out.add_four(node, squares);
    }
}
